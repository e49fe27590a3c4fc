UPDATE answers SET stop_requested_at = now(), stop_requested_by = $3
 WHERE project_id = $1 AND id = $2 AND end_seq IS NULL AND stop_requested_at IS NULL
RETURNING id
