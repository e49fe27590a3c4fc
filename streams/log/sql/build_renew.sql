UPDATE builds
   SET lease_until = now() + make_interval(secs => $4)
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
RETURNING cancelled
