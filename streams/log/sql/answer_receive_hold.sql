SELECT a.*, p.kind AS last_kind, p.body AS last_body
  FROM answers a
  LEFT JOIN LATERAL (
       SELECT kind, body FROM answer_pieces WHERE answer_id = a.id ORDER BY index DESC LIMIT 1
       ) p ON true
 WHERE a.project_id = $1 AND a.id = $2
   FOR UPDATE OF a
