SELECT id, last_seq FROM projects WHERE id = ANY ($1::text[])
