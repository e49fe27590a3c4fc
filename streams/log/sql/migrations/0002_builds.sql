-- Builds and the assistant's answers: work with a worker and a lease, in this database's time.

CREATE TABLE builds (
    id          uuid PRIMARY KEY,
    project_id  text COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    version_id  text NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    -- The user's message that asked for the build, and a copy of its text for the worker.
    message_seq bigint NOT NULL,
    message_id  uuid NOT NULL,
    request     text NOT NULL,
    metadata    json,
    status      text NOT NULL CHECK (status IN ('queued', 'in_progress', 'completed', 'failed')),
    attempt     int NOT NULL DEFAULT 0,
    progress    double precision,
    step        text,
    message     text,
    -- The worker that owns the build, and until when without a renewal.
    worker_id   text,
    lease_until timestamptz,
    cancelled   boolean NOT NULL DEFAULT false,
    result      json,
    -- The assistant's message that ended it.
    end_seq     bigint,
    -- Grows with every change that streams receive. `changes` keeps each change of status (five
    -- at most), so that none is lost when publishing is late.
    revision    bigint NOT NULL DEFAULT 1,
    changes     jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    ended_at    timestamptz
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX builds_message ON builds (project_id, message_seq);
CREATE INDEX builds_queued ON builds (created_at, id) WHERE status = 'queued';
CREATE INDEX builds_leases ON builds (lease_until) WHERE status = 'in_progress';
CREATE INDEX builds_unfinished ON builds (project_id) WHERE status IN ('queued', 'in_progress');
CREATE INDEX builds_updated ON builds (updated_at);

-- An answer of the assistant. `id` is also the id of the message that ends it.
CREATE TABLE answers (
    id          uuid PRIMARY KEY,
    project_id  text COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id     text COLLATE "C" NOT NULL,
    message_seq bigint NOT NULL,
    message_id  uuid NOT NULL,
    worker_id   text NOT NULL,
    lease_until timestamptz NOT NULL,
    end_seq     bigint,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX answers_message ON answers (project_id, message_seq);
CREATE INDEX answers_leases ON answers (lease_until) WHERE end_seq IS NULL;
