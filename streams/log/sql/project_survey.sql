-- The project, the lowest seq that it has, and which of its newest $2 seqs are there.
SELECT p.id, p.owner_id, p.name, p.created_at, p.last_seq,
       (SELECT min(m.seq) FROM messages m WHERE m.project_id = p.id) AS first_seq,
       ARRAY(
           SELECT m.seq FROM messages m
            WHERE m.project_id = p.id AND m.seq > p.last_seq - $2
            ORDER BY m.seq
            LIMIT $2
       ) AS newest
  FROM projects p
 WHERE p.id = $1
