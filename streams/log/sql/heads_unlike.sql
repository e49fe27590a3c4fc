SELECT projects.id, projects.last_seq
  FROM unnest($1::text[], $2::bigint[]) AS known (id, seq)
  JOIN projects ON projects.id = known.id
 WHERE projects.last_seq <> known.seq
