UPDATE builds SET cancelled = true WHERE id = $1 AND status IN ('queued', 'in_progress')
RETURNING *
