UPDATE answers SET end_seq = $2, end_status = $3, text = '' WHERE id = $1
