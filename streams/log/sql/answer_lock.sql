-- Serializes the beginning of answers of one project, or of one worker, until the transaction ends.
-- All take the project's lock before the worker's: two of them cannot deadlock.
SELECT pg_advisory_xact_lock($1, hashtext($2))
