-- No row when the message, or the client_msg_id, has an answer.
INSERT INTO answers (id, project_id, user_id, message_seq, question_seq, message_id, worker_id,
                     lease_until, is_streamed, is_outside, client_msg_id, regenerates, last_index)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8), $9, $10, $11, $12, -1)
ON CONFLICT DO NOTHING
RETURNING *
