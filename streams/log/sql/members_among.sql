SELECT asked.project_id, asked.user_id
  FROM unnest($1::text[], $2::text[]) AS asked (project_id, user_id)
  JOIN projects p ON p.id = asked.project_id COLLATE "C"
 WHERE p.owner_id = asked.user_id COLLATE "C"
    OR EXISTS (
        SELECT 1 FROM project_members m
         WHERE m.project_id = p.id AND m.user_id = asked.user_id COLLATE "C"
    )
