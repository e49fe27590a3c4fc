SELECT * FROM builds WHERE id = ANY ($1::uuid[])
