-- Abandoned builds first: somebody has been waiting for them the longest.
WITH abandoned AS MATERIALIZED (
    SELECT id FROM builds
     WHERE status = 'in_progress' AND lease_until <= now() AND attempt < $4 AND NOT cancelled
     ORDER BY lease_until
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), queued AS MATERIALIZED (
    SELECT id FROM builds
     WHERE status = 'queued'
     ORDER BY created_at, id
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id FROM abandoned UNION ALL SELECT id FROM queued LIMIT $3
)
UPDATE builds b
   SET status = 'in_progress',
       attempt = b.attempt + 1,
       progress = NULL, step = NULL, message = NULL,
       worker_id = $1,
       lease_until = now() + make_interval(secs => $2),
       revision = b.revision + 1,
       changes = b.changes || jsonb_build_object(
           'revision', b.revision + 1, 'status', 'in_progress', 'attempt', b.attempt + 1,
           'message', NULL, 'at_us', (extract(epoch FROM now()) * 1000000)::bigint),
       started_at = coalesce(b.started_at, now()),
       updated_at = now()
 WHERE b.id IN (SELECT id FROM chosen)
RETURNING *
