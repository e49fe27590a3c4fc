-- Indexes for claiming builds fairly over projects (build_claim.sql) and for limiting unfinished
-- builds (build_room.sql).

CREATE INDEX builds_queued_by_project ON builds (project_id, created_at, id)
    WHERE status = 'queued';
CREATE INDEX builds_running ON builds (project_id) WHERE status = 'in_progress';
CREATE INDEX builds_unfinished_of_user ON builds (user_id)
    WHERE status IN ('queued', 'in_progress');
