-- Claim up to $3 builds for worker $1.
--
-- Builds whose lease ran out or was released come first: their users have waited longest.
--
-- Queued builds are claimed fairly over projects: the project with the fewest running builds
-- first, among equals the build that has waited longest. `fresh` finds builds of projects without
-- a running build among the 1,100 oldest; one project or user may not queue as many by default.
-- Only when `fresh` finds too few, `rest` reads every project with a queue: an index probe each.
--
-- SKIP LOCKED skips builds that another worker is claiming, so `fresh` and `rest` take more
-- candidates than needed. Candidates are arrays of ids, which the planner estimates as few rows.
WITH RECURSIVE abandoned AS MATERIALIZED (
    SELECT id FROM builds
     WHERE status = 'in_progress' AND lease_until <= now()
       AND (attempt < $4 OR worker_id IS NULL) AND NOT cancelled
     ORDER BY lease_until
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), running AS MATERIALIZED (
    SELECT project_id, count(*) AS builds
      FROM builds
     WHERE status = 'in_progress'
     GROUP BY project_id
), oldest AS MATERIALIZED (
    SELECT id, project_id, created_at FROM builds
     WHERE status = 'queued'
     ORDER BY created_at, id
     LIMIT 1100
), fresh_candidates AS MATERIALIZED (
    SELECT ARRAY(
        SELECT id FROM (
            SELECT DISTINCT ON (o.project_id) o.id, o.created_at
              FROM oldest o
             WHERE NOT EXISTS (SELECT FROM running r WHERE r.project_id = o.project_id)
             ORDER BY o.project_id, o.created_at, o.id) heads
         ORDER BY created_at, id
         LIMIT 4 * $3 + 16) AS ids
), fresh AS MATERIALIZED (
    SELECT id FROM builds
     WHERE id = ANY ((SELECT ids FROM fresh_candidates)::uuid[]) AND status = 'queued'
     ORDER BY created_at, id
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), heads AS (
    (SELECT project_id, created_at FROM builds
      WHERE status = 'queued'
      ORDER BY project_id, created_at
      LIMIT 1)
    UNION ALL
    SELECT b.project_id, b.created_at
      FROM heads h
     CROSS JOIN LATERAL (
           SELECT project_id, created_at FROM builds
            WHERE status = 'queued' AND project_id > h.project_id
            ORDER BY project_id, created_at
            LIMIT 1) b
), next_projects AS MATERIALIZED (
    SELECT h.project_id, coalesce(r.builds, 0) AS running
      FROM heads h
      LEFT JOIN running r ON r.project_id = h.project_id
     ORDER BY running, h.created_at
     LIMIT 4 * $3 + 16
), rest_candidates AS MATERIALIZED (
    SELECT ARRAY(
        SELECT b.id
          FROM next_projects p
         CROSS JOIN LATERAL (
               SELECT q.id, q.created_at,
                      p.running + row_number() OVER (ORDER BY q.created_at, q.id) AS turn
                 FROM (SELECT id, created_at FROM builds
                        WHERE status = 'queued' AND project_id = p.project_id
                        ORDER BY created_at, id
                        LIMIT 4 * $3 + 16) q) b
         ORDER BY b.turn, b.created_at, b.id
         LIMIT 4 * $3 + 16) AS ids
), rest AS MATERIALIZED (
    SELECT id FROM builds
     WHERE id = ANY ((SELECT ids FROM rest_candidates)::uuid[]) AND status = 'queued'
       AND id NOT IN (SELECT id FROM fresh)
     ORDER BY array_position((SELECT ids FROM rest_candidates), id)
     LIMIT $3
       FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id FROM abandoned
    UNION ALL SELECT id FROM fresh
    UNION ALL SELECT id FROM rest
    LIMIT $3
)
UPDATE builds b
   SET status = 'in_progress',
       -- In progress without a worker: the worker released it, and the attempt continues.
       attempt = b.attempt
           + CASE WHEN b.status = 'in_progress' AND b.worker_id IS NULL THEN 0 ELSE 1 END,
       progress = NULL, step = NULL, message = NULL,
       worker_id = $1,
       lease_until = now() + make_interval(secs => $2),
       revision = b.revision + 1,
       -- A continued attempt is no change of status, so `changes` stays bounded.
       changes = CASE WHEN b.status = 'in_progress' AND b.worker_id IS NULL THEN b.changes
           ELSE b.changes || jsonb_build_object(
               'revision', b.revision + 1, 'status', 'in_progress', 'attempt', b.attempt + 1,
               'message', NULL, 'at_us', (extract(epoch FROM now()) * 1000000)::bigint) END,
       started_at = coalesce(b.started_at, now()),
       updated_at = now()
 WHERE b.id = ANY (ARRAY(SELECT id FROM chosen))
RETURNING b.*
