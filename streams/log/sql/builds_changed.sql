SELECT *, extract(epoch FROM clock_timestamp() - updated_at)::float8 AS age_s
  FROM builds
 WHERE updated_at > now() - make_interval(secs => $2) AND project_id = ANY ($1::text[])
 ORDER BY updated_at
 LIMIT $3
