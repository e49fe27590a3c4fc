-- How many answers of assistants outside are unfinished in a project, and of a worker in all, counted
-- up to the bounds.
SELECT (SELECT count(*) FROM (
            SELECT FROM answers
             WHERE project_id = $1 AND is_outside AND end_seq IS NULL
             LIMIT $3) p) AS of_project,
       (SELECT count(*) FROM (
            SELECT FROM answers
             WHERE user_id = $2 AND is_outside AND end_seq IS NULL
             LIMIT $4) u) AS of_user
