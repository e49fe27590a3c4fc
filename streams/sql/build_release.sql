UPDATE builds
   SET lease_until = now()
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
