-- The text of an answer while it is written, and who asked it to stop. Every column is nullable or
-- has a constant default: no row is rewritten, and older code works with the table.

ALTER TABLE answers
    -- The text so far, written with the renewals of the lease; empty once the answer has ended: a
    -- redaction of its message must not leave a copy here.
    ADD COLUMN text text NOT NULL DEFAULT '',
    -- Index of the `message.delta` that the text ends with; null when no piece was cut.
    ADD COLUMN last_index int,
    ADD COLUMN stop_requested_at timestamptz,
    ADD COLUMN stop_requested_by text COLLATE "C",
    -- completed, stopped or failed; null when older code ended the answer.
    ADD COLUMN end_status text,
    -- Renewals are frequent: room in the page for the next version of a row.
    SET (fillfactor = 70);
