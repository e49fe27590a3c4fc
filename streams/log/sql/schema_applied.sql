-- Through jsonb, because the table of an older schema has no column `breaking`.
SELECT number, name, coalesce((to_jsonb(m) ->> 'breaking')::boolean, false) AS breaking
  FROM schema_migrations m
