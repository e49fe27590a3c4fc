SELECT * FROM builds
 WHERE project_id = $1 AND ($2::text IS NULL OR status = $2)
 ORDER BY message_seq DESC
 LIMIT $3
