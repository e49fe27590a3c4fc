INSERT INTO projects (id, owner_id, name) VALUES ($1, $2, $3)
ON CONFLICT (id) DO NOTHING
