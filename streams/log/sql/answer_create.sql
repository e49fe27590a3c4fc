INSERT INTO answers (id, project_id, user_id, message_seq, message_id, worker_id, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
ON CONFLICT (project_id, message_seq) DO NOTHING
RETURNING *
