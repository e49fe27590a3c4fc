SELECT kind, body FROM answer_pieces WHERE answer_id = $1 ORDER BY index
