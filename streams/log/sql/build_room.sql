-- How many unfinished builds a project and a user have, counted up to the bounds.
SELECT (SELECT count(*) FROM (
            SELECT FROM builds
             WHERE project_id = $1 AND status IN ('queued', 'in_progress')
             LIMIT $3) p) AS of_project,
       (SELECT count(*) FROM (
            SELECT FROM builds
             WHERE user_id = $2 AND status IN ('queued', 'in_progress')
             LIMIT $4) u) AS of_user
