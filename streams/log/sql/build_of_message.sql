SELECT * FROM builds WHERE project_id = $1 AND message_seq = $2
