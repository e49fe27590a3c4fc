-- A redaction of the answer's message must not leave a copy here.
WITH ended AS (
    UPDATE answers SET end_seq = $2, end_status = $3, text = '' WHERE id = $1
)
DELETE FROM answer_pieces WHERE answer_id = $1
