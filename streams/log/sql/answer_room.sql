-- How many answers of assistants outside are unfinished: in a project, of them those that are written
-- again, and of a worker in all projects. Each is counted up to its bound.
SELECT (SELECT count(*) FROM (
            SELECT FROM answers
             WHERE project_id = $1 AND is_outside AND end_seq IS NULL
             LIMIT $3) p) AS of_project,
       (SELECT count(*) FROM (
            SELECT FROM answers
             WHERE user_id = $2 AND is_outside AND end_seq IS NULL
             LIMIT $4) u) AS of_worker,
       (SELECT count(*) FROM (
            SELECT FROM answers
             WHERE project_id = $1 AND is_outside AND end_seq IS NULL AND regenerates IS NOT NULL
             LIMIT $5) r) AS again
