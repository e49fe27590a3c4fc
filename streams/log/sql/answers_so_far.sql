-- The unfinished answers of some projects with their pieces: of each project the newest $2.
SELECT a.*, p.last, p.kinds, p.bodies
  FROM unnest($1::text[]) AS wanted (id)
 CROSS JOIN LATERAL (
       SELECT * FROM answers
        WHERE project_id = wanted.id AND end_seq IS NULL
        ORDER BY created_at DESC
        LIMIT $2
       ) a
  LEFT JOIN LATERAL (
       SELECT max(index) AS last, array_agg(kind ORDER BY index) AS kinds,
              array_agg(body ORDER BY index) AS bodies
         FROM answer_pieces
        WHERE answer_id = a.id
       ) p ON true
