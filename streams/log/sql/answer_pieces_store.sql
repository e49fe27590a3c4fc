-- Store pieces of the answers that a worker owns; a piece that is there stays. The rows of the answers
-- are locked, so that nothing is stored once another worker has one, or it has ended.
WITH new AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[])
               AS n (answer_id, index, kind, body)
), held AS (
    UPDATE answers a
       SET last_index = greatest(a.last_index, n.last), stored_at = clock_timestamp()
      FROM (SELECT answer_id, max(index) AS last FROM new GROUP BY answer_id) n
     WHERE a.id = n.answer_id AND a.worker_id = $5 AND a.end_seq IS NULL
    RETURNING a.id, a.stop_requested_by
), stored AS (
    INSERT INTO answer_pieces (answer_id, index, kind, body)
    SELECT n.answer_id, n.index, n.kind, n.body FROM new n JOIN held ON held.id = n.answer_id
    ON CONFLICT DO NOTHING
)
SELECT id, stop_requested_by FROM held
