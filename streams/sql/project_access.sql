SELECT p.owner_id = $2 AS is_owner,
       p.owner_id = $2 OR EXISTS (
           SELECT 1 FROM project_members m WHERE m.project_id = p.id AND m.user_id = $2
       ) AS is_member
  FROM projects p
 WHERE p.id = $1
