-- seqstream_append as in 0001, with a limit to how long it waits for a locked project. Replaces one
-- function and adds another: no table changes, and older code works with it.

CREATE OR REPLACE FUNCTION seqstream_append(
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
-- A row that another session holds must not delay the other projects of the call: the call fails
-- with 55P03, writes nothing, and the caller sets the project aside.
SET lock_timeout = '250ms'
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

-- The projects among those given whose row another session holds locked.
CREATE FUNCTION seqstream_locked(p_project_ids text[]) RETURNS SETOF text
LANGUAGE sql
SET lock_timeout = '250ms'
AS $$
    WITH free AS MATERIALIZED (
        SELECT p.id FROM projects p WHERE p.id = ANY (p_project_ids)
           FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT p.id FROM projects p
     WHERE p.id = ANY (p_project_ids)
       AND NOT EXISTS (SELECT FROM free WHERE free.id = p.id)
$$;
