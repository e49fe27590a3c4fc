-- Of the ended ones those of the last day: all of them would be an ever longer count.
SELECT status, count(*) AS builds,
       extract(epoch FROM now() - min(created_at))::float8 AS oldest_s
  FROM builds
 WHERE status IN ('queued', 'in_progress') OR updated_at > now() - interval '1 day'
 GROUP BY status
