-- Without a worker: so the claim that follows is no further attempt, and the worker that had it
-- can write nothing any more.
UPDATE builds
   SET lease_until = now(), worker_id = NULL
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
