-- End a build that no worker owns.
UPDATE builds
   SET status = 'failed',
       message = $2,
       lease_until = NULL,
       revision = revision + 1,
       changes = changes || jsonb_build_object(
           'revision', revision + 1, 'status', 'failed', 'attempt', attempt, 'message', $2::text,
           'at_us', (extract(epoch FROM now()) * 1000000)::bigint),
       updated_at = now(),
       ended_at = now()
 WHERE id = $1
   AND (status = 'queued' OR (status = 'in_progress' AND lease_until <= now()))
RETURNING *
