-- Store what an assistant outside sent; its lease begins anew.
WITH stored AS (
    INSERT INTO answer_pieces (answer_id, index, kind, body)
    SELECT $1, n.index, n.kind, n.body
      FROM unnest($2::int[], $3::text[], $4::text[]) AS n (index, kind, body)
)
UPDATE answers
   SET received = $5, text_bytes = $6, parts_bytes = $7,
       last_index = last_index + cardinality($2::int[]),
       stored_at = CASE WHEN cardinality($2::int[]) > 0 THEN clock_timestamp() ELSE stored_at END,
       lease_until = now() + make_interval(secs => $8)
 WHERE id = $1
