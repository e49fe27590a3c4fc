-- At most $4 messages, cut after the one that brings texts and metadata to $5 bytes. The index
-- returns them in order, so the window function stops at the LIMIT. Stored sizes equal the sizes on
-- the wire, except for compressed metadata.
SELECT seq, id, client_msg_id, user_id, text, type, mode, actor_type, parent_id, metadata,
       created_at, upto
  FROM (
        SELECT sized.*, sum(size) OVER (ORDER BY seq DESC ROWS UNBOUNDED PRECEDING) AS upto
          FROM (
                SELECT m.*,
                       octet_length(m.text)
                         + CASE WHEN m.metadata IS NULL THEN 0
                                WHEN pg_column_compression(m.metadata) IS NULL
                                THEN pg_column_size(m.metadata)
                                ELSE octet_length(m.metadata::text)
                           END AS size
                  FROM messages m
                 WHERE m.project_id = $1 AND m.seq > $2 AND m.seq < $3
               ) sized
         ORDER BY seq DESC
         LIMIT $4
       ) page
 WHERE upto - size < $5
 ORDER BY seq DESC
