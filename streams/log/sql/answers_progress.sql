-- How far the unfinished answers of some projects are.
SELECT id, project_id, coalesce(last_index, -1) AS last_index, is_streamed,
       extract(epoch FROM clock_timestamp() - coalesce(stored_at, created_at))::float8 AS age_s
  FROM answers
 WHERE project_id = ANY ($1::text[]) AND end_seq IS NULL
 LIMIT $2
