-- Detections in buckets of `step` seconds, by the latest event of the group.
-- from: time
-- step: seconds 60
SELECT date_bin($step, last_seen) AS t,
       count(*) FILTER (WHERE threat_level = 'CRITICAL') AS critical,
       count(*) FILTER (WHERE threat_level = 'HIGH') AS high,
       count(*) FILTER (WHERE threat_level = 'MEDIUM') AS medium,
       count(*) FILTER (WHERE threat_level = 'LOW') AS low
FROM detections
WHERE $from IS NULL OR last_seen >= $from
GROUP BY 1 ORDER BY 1
