-- The most frequent fingerprints with their most frequent user agent.
-- from: time
WITH agents AS (
  SELECT ja4, header_user_agent AS agent, count(*) AS n FROM requests
  WHERE ($from IS NULL OR time >= $from) AND ja4 <> '' GROUP BY 1, 2
), named AS (
  SELECT ja4, first_value(agent ORDER BY n DESC, agent) AS agent, count(agent) AS agents FROM agents GROUP BY ja4
), busiest AS (
  SELECT ja4, count(*) AS requests, count(DISTINCT src_ip) AS clients, count(DISTINCT host) AS hosts
  FROM requests WHERE ($from IS NULL OR time >= $from) AND ja4 <> '' GROUP BY ja4 ORDER BY requests DESC, ja4 LIMIT 12
)
SELECT busiest.ja4, requests, clients, hosts, agent, agents FROM busiest JOIN named ON busiest.ja4 = named.ja4
ORDER BY requests DESC, busiest.ja4
