SELECT a.id, a.message_id,
       CASE WHEN a.end_seq IS NULL THEN 'in_progress'
            WHEN a.end_status IS NOT NULL THEN a.end_status
            -- Ended by code that did not record it.
            WHEN m.metadata #>> '{response_data,type}' = 'answer' THEN 'completed'
            ELSE 'failed'
       END AS status,
       CASE WHEN a.end_seq IS NULL THEN a.text ELSE coalesce(m.text, '') END AS text,
       CASE WHEN a.end_seq IS NULL THEN a.last_index END AS last_index
  FROM answers a
  LEFT JOIN messages m ON m.project_id = a.project_id AND m.seq = a.end_seq
 WHERE a.project_id = $1 AND a.id = $2
