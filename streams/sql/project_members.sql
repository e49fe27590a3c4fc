SELECT user_id FROM project_members WHERE project_id = $1 ORDER BY user_id
