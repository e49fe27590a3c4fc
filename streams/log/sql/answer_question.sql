-- A message by its id, among the newest: there is no index on ids, which every append would pay for.
SELECT seq
  FROM (SELECT seq, id FROM messages WHERE project_id = $1 ORDER BY seq DESC LIMIT $3) newest
 WHERE id = $2
 LIMIT 1
