-- Serializes the build requests of one user over all projects, so that each counts the others.
-- Taken after the lock on the project's row, never before it: two requests cannot deadlock.
SELECT pg_advisory_xact_lock($1, hashtext($2))
