SELECT * FROM builds WHERE project_id = $1 AND id = $2
