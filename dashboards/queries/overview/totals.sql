-- Numbers of the tiles.
-- from: time
SELECT count(*) AS requests, count(*) FILTER (WHERE correlated = 1) AS correlated,
       count(DISTINCT src_ip) AS clients, count(DISTINCT host) AS hosts,
       count(DISTINCT ja4) FILTER (WHERE ja4 <> '') AS fingerprints
FROM requests
WHERE $from IS NULL OR time >= $from
