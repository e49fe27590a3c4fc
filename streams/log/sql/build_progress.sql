UPDATE builds
   SET progress = coalesce($4, progress),
       step = coalesce($5, step),
       message = coalesce($6, message),
       lease_until = now() + make_interval(secs => $7),
       revision = revision + 1,
       updated_at = now()
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
RETURNING *
