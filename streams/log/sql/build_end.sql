UPDATE builds
   SET status = $4,
       message = coalesce($5, message),
       progress = CASE WHEN $4 = 'completed' THEN 100 ELSE progress END,
       result = $6::text::json,
       lease_until = NULL,
       revision = revision + 1,
       changes = changes || jsonb_build_object(
           'revision', revision + 1, 'status', $4::text, 'attempt', attempt,
           'message', coalesce($5, message),
           'at_us', (extract(epoch FROM now()) * 1000000)::bigint),
       updated_at = now(),
       ended_at = now()
 WHERE id = $1 AND attempt = $2 AND worker_id = $3 AND status = 'in_progress'
RETURNING *
