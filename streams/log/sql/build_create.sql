INSERT INTO builds (id, project_id, version_id, user_id, message_seq, message_id, request,
                    metadata, status, changes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::json, 'queued',
        jsonb_build_array(jsonb_build_object(
            'revision', 1, 'status', 'queued', 'attempt', 0, 'message', NULL,
            'at_us', (extract(epoch FROM now()) * 1000000)::bigint)))
ON CONFLICT (project_id, message_seq) DO NOTHING
RETURNING *
