// What the overview asks. Every function takes the start of the range as SQL text, or null for all.

const where = (column, from, ...more) => {
  const parts = [from && `${column} >= ${from}`, ...more].filter(Boolean);
  return parts.length ? `WHERE ${parts.join(" AND ")}` : "";
};

/** First and last event. */
export const extent = "SELECT min(time) AS lo, max(time) AS hi FROM requests";

/** Numbers of the tiles. */
export const totals = (from) => `
  SELECT count(*) AS requests, count(*) FILTER (WHERE correlated = 1) AS correlated,
         count(DISTINCT src_ip) AS clients, count(DISTINCT host) AS hosts,
         count(DISTINCT ja4) FILTER (WHERE ja4 <> '') AS fingerprints
  FROM requests ${where("time", from)}`;

/** Requests in buckets of `step` seconds. */
export const requests = (from, step) => `
  SELECT date_bin(INTERVAL '${step} seconds', time) AS t,
         count(*) FILTER (WHERE correlated = 1) AS correlated,
         count(*) FILTER (WHERE correlated IS DISTINCT FROM 1) AS orphan
  FROM requests ${where("time", from)} GROUP BY 1 ORDER BY 1`;

/** Detections in buckets of `step` seconds, by the latest event of the group. */
export const levels = (from, step) => `
  SELECT date_bin(INTERVAL '${step} seconds', last_seen) AS t,
         count(*) FILTER (WHERE threat_level = 'CRITICAL') AS critical,
         count(*) FILTER (WHERE threat_level = 'HIGH') AS high,
         count(*) FILTER (WHERE threat_level = 'MEDIUM') AS medium,
         count(*) FILTER (WHERE threat_level = 'LOW') AS low
  FROM detections ${where("last_seen", from)} GROUP BY 1 ORDER BY 1`;

/** The list of detections, the worst first. */
export const detections = (from, limit) => `
  SELECT * FROM detections ${where("last_seen", from)}
  ORDER BY CASE threat_level WHEN 'CRITICAL' THEN 0 WHEN 'HIGH' THEN 1 WHEN 'MEDIUM' THEN 2 WHEN 'LOW' THEN 3 ELSE 4 END,
           last_seen DESC, src_ip, host, ja4
  LIMIT ${limit}`;

/** The most frequent fingerprints with their most frequent user agent. */
export const fingerprints = (from) => `
  WITH agents AS (
    SELECT ja4, header_user_agent AS agent, count(*) AS n FROM requests ${where("time", from, "ja4 <> ''")} GROUP BY 1, 2
  ), named AS (
    SELECT ja4, first_value(agent ORDER BY n DESC, agent) AS agent, count(agent) AS agents FROM agents GROUP BY ja4
  ), busiest AS (
    SELECT ja4, count(*) AS requests, count(DISTINCT src_ip) AS clients, count(DISTINCT host) AS hosts
    FROM requests ${where("time", from, "ja4 <> ''")} GROUP BY ja4 ORDER BY requests DESC, ja4 LIMIT 12
  )
  SELECT busiest.ja4, requests, clients, hosts, agent, agents FROM busiest JOIN named ON busiest.ja4 = named.ja4
  ORDER BY requests DESC, busiest.ja4`;

/** What the SQL box starts with. */
export const example = `SELECT src_ip, count(*) AS requests,
       count(*) FILTER (WHERE status_code >= 400) AS errors,
       count(DISTINCT path) AS paths, min(ja4) AS ja4
FROM requests
GROUP BY src_ip
ORDER BY requests DESC
LIMIT 50`;
