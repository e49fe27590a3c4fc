-- Pieces of unfinished answers, and answers that are begun without a message of their own: again, or
-- by an assistant outside. Columns that are new have constant defaults: no row is rewritten, and
-- older code works with the tables. It does not see the pieces: an answer of newer code that older
-- code takes over while both run ends without its text.

CREATE TABLE answer_pieces (
    answer_id uuid NOT NULL REFERENCES answers (id) ON DELETE CASCADE,
    -- As in `message.delta`.
    index     int NOT NULL,
    kind      text NOT NULL,
    -- The text of a piece of kind `text`, the data of another as JSON.
    body      text NOT NULL,
    PRIMARY KEY (answer_id, index)
);

ALTER TABLE answers
    -- The message whose append began the answer: one answer for each. Null for the others.
    ALTER COLUMN message_seq DROP NOT NULL,
    -- The message that is answered, of every answer that this or newer code begins.
    ADD COLUMN question_seq bigint,
    -- Whether pieces go to the project's stream.
    ADD COLUMN is_streamed boolean NOT NULL DEFAULT true,
    -- Written by requests to any process, each of which renews the lease; the worker is its user.
    ADD COLUMN is_outside boolean NOT NULL DEFAULT false,
    -- Of an assistant outside: how many pieces were received, the bytes of the text and of the parts.
    ADD COLUMN received int NOT NULL DEFAULT 0,
    ADD COLUMN text_bytes int NOT NULL DEFAULT 0,
    ADD COLUMN parts_bytes int NOT NULL DEFAULT 0,
    -- When the last piece was stored.
    ADD COLUMN stored_at timestamptz,
    ADD COLUMN client_msg_id text COLLATE "C",
    -- The answer to the same message before this one.
    ADD COLUMN regenerates uuid;

CREATE UNIQUE INDEX answers_client_msg_id ON answers (project_id, user_id, client_msg_id)
    WHERE client_msg_id IS NOT NULL;

CREATE INDEX answers_unfinished ON answers (project_id) WHERE end_seq IS NULL;
CREATE INDEX answers_outside ON answers (user_id) WHERE end_seq IS NULL AND is_outside;
