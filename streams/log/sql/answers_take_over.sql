-- An answer whose lease ran out; or one that should have stopped and did not: its worker runs older
-- code, or died, and need not be waited for.
WITH abandoned AS MATERIALIZED (
    SELECT id FROM answers
     WHERE end_seq IS NULL
       AND (lease_until <= now()
            OR (stop_requested_at <= now() - make_interval(secs => $4) AND worker_id <> $1))
     ORDER BY lease_until
     LIMIT $3
       FOR UPDATE SKIP LOCKED
)
UPDATE answers a
   SET worker_id = $1, lease_until = now() + make_interval(secs => $2)
 WHERE a.id IN (SELECT id FROM abandoned)
RETURNING *
