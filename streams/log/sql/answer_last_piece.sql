-- A statement of its own, after the lock on the answer: joined to it, it would show the pieces as
-- they were before the wait for the lock.
SELECT kind, body FROM answer_pieces WHERE answer_id = $1 ORDER BY index DESC LIMIT 1
