-- Ended builds are counted for the last day only, so that the count does not grow without limit.
SELECT status, count(*) AS builds,
       extract(epoch FROM now() - min(created_at))::float8 AS oldest_s
  FROM builds
 WHERE status IN ('queued', 'in_progress') OR updated_at > now() - interval '1 day'
 GROUP BY status
