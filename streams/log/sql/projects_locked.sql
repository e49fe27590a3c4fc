SELECT id FROM seqstream_locked($1) AS id
