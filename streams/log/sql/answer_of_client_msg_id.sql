SELECT * FROM answers WHERE project_id = $1 AND user_id = $2 AND client_msg_id = $3
