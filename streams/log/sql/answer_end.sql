UPDATE answers SET end_seq = $2 WHERE id = $1
