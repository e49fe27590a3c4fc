SELECT seq, id, client_msg_id, user_id, text, type, mode, actor_type, parent_id, metadata,
       created_at
  FROM messages
 WHERE project_id = $1 AND seq > $2 AND seq < $3
 ORDER BY seq DESC
 LIMIT $4
