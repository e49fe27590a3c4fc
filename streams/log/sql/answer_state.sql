SELECT a.*, p.last, p.kinds, p.bodies, m.text AS end_text, m.metadata AS end_metadata,
       CASE WHEN a.end_seq IS NULL THEN 'in_progress'
            WHEN a.end_status IS NOT NULL THEN a.end_status
            -- Ended by code that did not record it.
            WHEN m.metadata #>> '{response_data,type}' = 'answer' THEN 'completed'
            ELSE 'failed'
       END AS status
  FROM answers a
  LEFT JOIN messages m ON m.project_id = a.project_id AND m.seq = a.end_seq
  LEFT JOIN LATERAL (
       SELECT max(index) AS last, array_agg(kind ORDER BY index) AS kinds,
              array_agg(body ORDER BY index) AS bodies
         FROM answer_pieces
        WHERE answer_id = a.id
       ) p ON true
 WHERE a.project_id = $1 AND a.id = $2
