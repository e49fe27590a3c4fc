-- Asks of one user in several projects count one after the other; always after the project's row.
SELECT pg_advisory_xact_lock($1, hashtext($2))
