SELECT id, owner_id, name, last_seq, created_at FROM projects WHERE id = $1
