UPDATE answers
   SET lease_until = now() + make_interval(secs => $3)
 WHERE id = ANY ($1::uuid[]) AND worker_id = $2 AND end_seq IS NULL
RETURNING id, stop_requested_by
