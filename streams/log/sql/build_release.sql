-- Clearing worker_id makes the next claim continue this attempt, and stops further writes of the
-- worker that released the build.
UPDATE builds
   SET lease_until = now(), worker_id = NULL
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
