SELECT b.*
  FROM unnest($1::text[]) AS asked (project_id)
 CROSS JOIN LATERAL (
     SELECT * FROM builds
      WHERE builds.project_id = asked.project_id COLLATE "C"
        AND builds.status IN ('queued', 'in_progress')
      ORDER BY builds.message_seq DESC
      LIMIT $2
 ) b
