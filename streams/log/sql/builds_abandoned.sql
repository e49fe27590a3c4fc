-- Builds that nobody works on and that nobody may claim again.
SELECT * FROM builds
 WHERE status = 'in_progress' AND lease_until <= now()
   AND ((attempt >= $1 AND worker_id IS NOT NULL) OR cancelled)
 ORDER BY lease_until
 LIMIT $2
