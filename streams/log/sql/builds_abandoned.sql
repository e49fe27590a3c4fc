-- Builds whose lease ran out and that may not be claimed again.
SELECT * FROM builds
 WHERE status = 'in_progress' AND lease_until <= now()
   AND ((attempt >= $1 AND worker_id IS NOT NULL) OR cancelled)
 ORDER BY lease_until
 LIMIT $2
