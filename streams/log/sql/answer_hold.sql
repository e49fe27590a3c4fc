SELECT * FROM answers WHERE id = $1 AND worker_id = $2 AND end_seq IS NULL FOR UPDATE
