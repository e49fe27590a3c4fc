-- Unfinished answers, of one project or of all (null). The partial index holds no others, and the
-- first LIMIT bounds the work where they are many.
WITH unfinished AS MATERIALIZED (
    SELECT * FROM answers WHERE end_seq IS NULL ORDER BY lease_until DESC LIMIT 1000
)
SELECT u.*, coalesce(u.question_seq, u.message_seq) AS answered_seq,
       extract(epoch FROM now() - u.created_at)::float8 AS age_s,
       count(*) OVER () AS in_all
  FROM unfinished u
 WHERE $1::text IS NULL OR u.project_id = $1
 ORDER BY u.created_at DESC
 LIMIT $2
