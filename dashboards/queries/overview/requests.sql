-- Requests in buckets of `step` seconds.
-- from: time
-- step: seconds 60
SELECT date_bin($step, time) AS t,
       count(*) FILTER (WHERE correlated = 1) AS correlated,
       count(*) FILTER (WHERE correlated IS DISTINCT FROM 1) AS orphan
FROM requests
WHERE $from IS NULL OR time >= $from
GROUP BY 1 ORDER BY 1
