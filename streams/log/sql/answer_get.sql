SELECT * FROM answers WHERE project_id = $1 AND id = $2
