/** What the SQL box starts with. */
export const example = `SELECT src_ip, count(*) AS requests,
       count(*) FILTER (WHERE status_code >= 400) AS errors,
       count(DISTINCT path) AS paths, min(ja4) AS ja4
FROM requests
GROUP BY src_ip
ORDER BY requests DESC
LIMIT 50`;
