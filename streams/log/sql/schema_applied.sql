-- Through jsonb: the column `breaking` is younger than the table.
SELECT number, name, coalesce((to_jsonb(m) ->> 'breaking')::boolean, false) AS breaking
  FROM schema_migrations m
