-- Serializes the beginning of answers of one project, or of one worker, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('seqstream answers'), hashtext($1))
