-- A released build continues its attempt: see build_claim.sql.
UPDATE builds b
   SET status = 'in_progress',
       attempt = b.attempt
           + CASE WHEN b.status = 'in_progress' AND b.worker_id IS NULL THEN 0 ELSE 1 END,
       progress = NULL, step = NULL, message = NULL,
       worker_id = $1,
       lease_until = now() + make_interval(secs => $2),
       revision = b.revision + 1,
       changes = CASE WHEN b.status = 'in_progress' AND b.worker_id IS NULL THEN b.changes
           ELSE b.changes || jsonb_build_object(
               'revision', b.revision + 1, 'status', 'in_progress', 'attempt', b.attempt + 1,
               'message', NULL, 'at_us', (extract(epoch FROM now()) * 1000000)::bigint) END,
       started_at = coalesce(b.started_at, now()),
       updated_at = now()
 WHERE b.id = $3
   AND (b.status = 'queued'
        OR (b.status = 'in_progress' AND b.lease_until <= now()
            AND (b.attempt < $4 OR b.worker_id IS NULL) AND NOT b.cancelled))
RETURNING *
