-- A text that is null is unchanged since the last checkpoint.
UPDATE answers a
   SET lease_until = now() + make_interval(secs => $5),
       text = coalesce(c.text, a.text),
       last_index = coalesce(c.last_index, a.last_index)
  FROM unnest($1::uuid[], $2::text[], $3::int[]) AS c (id, text, last_index)
 WHERE a.id = c.id AND a.worker_id = $4 AND a.end_seq IS NULL
RETURNING a.id, a.stop_requested_by
