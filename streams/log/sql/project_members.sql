SELECT user_id FROM project_members
 WHERE project_id = $1 AND user_id > $2 COLLATE "C"
 ORDER BY user_id LIMIT $3
