-- The log: projects, their members, their messages.
--
-- Ids compare byte by byte (COLLATE "C"): rows are locked in this order, which is then the same in
-- every database, and the comparison is faster.

CREATE TABLE projects (
    id         text COLLATE "C" PRIMARY KEY,
    owner_id   text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    last_seq   bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
    -- Every append updates last_seq: room in the page keeps these updates off the index.
) WITH (fillfactor = 50);

CREATE TABLE project_members (
    project_id text COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id    text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id)
);

-- No foreign key to projects: seqstream_append holds the project's row locked when it inserts, so a
-- check per row would add cost and no safety.
CREATE TABLE messages (
    project_id    text COLLATE "C" NOT NULL,
    seq           bigint NOT NULL,
    id            uuid NOT NULL,
    client_msg_id text COLLATE "C",
    user_id       text COLLATE "C" NOT NULL,
    text          text NOT NULL,
    type          text NOT NULL,
    mode          text NOT NULL,
    actor_type    text NOT NULL,
    parent_id     text,
    -- json, not jsonb: the history returns the same bytes that were broadcast.
    metadata      json,
    -- Differs when a client_msg_id is reused with another content.
    digest        bytea,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (project_id, seq)
);

CREATE UNIQUE INDEX messages_client_msg_id
    ON messages (project_id, user_id, client_msg_id)
    WHERE client_msg_id IS NOT NULL;

-- Append the items of many units, in order, in one round trip.
--
-- The projects' rows are locked first, in order of id, until commit: so seq order is commit order,
-- an abort leaves no gap, and two callers cannot deadlock. Each statement of this function sees
-- what was committed before it began (READ COMMITTED), so repeats are looked up after the lock.
--
-- A unit is all or nothing: when one of its items has an unknown project or a client_msg_id that
-- was used with another digest, none of its items is written. The caller ensures that no
-- (project, user, client_msg_id) occurs twice in one call.
--
-- id: of the earlier message for a repeat, null for a message written with the id it was given.
-- outcome: 0 written, 1 repeat (first result returned), 2 another content under this
-- client_msg_id, 3 no such project, 4 not written because another item of the unit was refused.
CREATE FUNCTION seqstream_append(
    p_project_ids    text[],
    p_units          int[],
    p_ids            uuid[],
    p_client_msg_ids text[],
    p_user_ids       text[],
    p_texts          text[],
    p_types          text[],
    p_modes          text[],
    p_actor_types    text[],
    p_parent_ids     text[],
    p_metadata       text[],
    p_digests        bytea[]
) RETURNS TABLE (outcome int, seq bigint, id uuid, created_at timestamptz)
LANGUAGE plpgsql
-- One plan for all sizes: planning again costs more than a batch, and JIT more than a commit.
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM 1 FROM projects p
     WHERE p.id = ANY (p_project_ids)
     ORDER BY p.id
       FOR NO KEY UPDATE;
    -- After the lock: timestamps of a project then grow with its seqs.
    v_now := clock_timestamp();

    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT i.*, p.last_seq, e.seq AS e_seq, e.id AS e_id, e.created_at AS e_created_at,
               CASE WHEN p.id IS NULL THEN 3
                    WHEN e.seq IS NULL THEN 0
                    WHEN e.digest IS DISTINCT FROM i.digest THEN 2
                    ELSE 1
               END AS state
          FROM unnest(p_project_ids, p_units, p_ids, p_client_msg_ids, p_user_ids, p_texts,
                      p_types, p_modes, p_actor_types, p_parent_ids, p_metadata, p_digests)
               WITH ORDINALITY
               AS i (project_id, unit, id, client_msg_id, user_id, text,
                     type, mode, actor_type, parent_id, metadata, digest, n)
          LEFT JOIN projects p ON p.id = i.project_id COLLATE "C"
          -- LATERAL with LIMIT: one index look-up an item, whatever the statistics say.
          LEFT JOIN LATERAL (
               SELECT m.seq, m.id, m.created_at, m.digest
                 FROM messages m
                WHERE m.project_id = i.project_id COLLATE "C"
                  AND m.user_id = i.user_id COLLATE "C"
                  AND m.client_msg_id = i.client_msg_id COLLATE "C"
                LIMIT 1
          ) e ON i.client_msg_id IS NOT NULL
    ), refused AS (
        SELECT DISTINCT item.unit FROM item WHERE item.state >= 2
    ), fresh AS MATERIALIZED (
        SELECT item.*,
               item.last_seq
                 + row_number() OVER (PARTITION BY item.project_id ORDER BY item.n) AS new_seq
          FROM item
         WHERE item.state = 0
           AND item.unit NOT IN (SELECT refused.unit FROM refused)
    ), written AS (
        INSERT INTO messages (project_id, seq, id, client_msg_id, user_id, text, type, mode,
                              actor_type, parent_id, metadata, digest, created_at)
        SELECT f.project_id, f.new_seq, f.id, f.client_msg_id, f.user_id, f.text, f.type, f.mode,
               f.actor_type, f.parent_id, f.metadata::json, f.digest, v_now
          FROM fresh f
    ), counted AS (
        UPDATE projects p
           SET last_seq = top.seq
          FROM (SELECT f.project_id, max(f.new_seq) AS seq FROM fresh f GROUP BY f.project_id) top
         WHERE p.id = top.project_id COLLATE "C"
    )
    SELECT CASE WHEN item.state = 0 AND f.n IS NULL THEN 4 ELSE item.state END,
           coalesce(f.new_seq, item.e_seq),
           item.e_id,
           CASE WHEN f.n IS NULL THEN item.e_created_at ELSE v_now END
      FROM item
      LEFT JOIN fresh f ON f.n = item.n
     ORDER BY item.n;
END
$$;
