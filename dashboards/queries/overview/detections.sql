-- The list of detections, the worst first.
-- from: time
-- limit: integer 500
SELECT * FROM detections
WHERE $from IS NULL OR last_seen >= $from
ORDER BY CASE threat_level WHEN 'CRITICAL' THEN 0 WHEN 'HIGH' THEN 1 WHEN 'MEDIUM' THEN 2 WHEN 'LOW' THEN 3 ELSE 4 END,
         last_seen DESC, src_ip, host, ja4
LIMIT $limit
