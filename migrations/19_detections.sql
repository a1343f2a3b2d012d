-- What the engine needs to fill the tables of 06 and 11, and what is asked of them. The order of rows (`time`, `seq`), `tick` as in 12, and,
-- where rows are corrected, `updated_at` and `is_deleted`. A detection of another hour is another row: without window_start in the order only
-- the last one of a day stayed. Rows that others have written have window_start 1970.
ALTER TABLE ${database}.ml_detected_anomalies
    ADD COLUMN IF NOT EXISTS time DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS seq UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS window_start DateTime CODEC(DoubleDelta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS updated_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS is_deleted UInt8,
    MODIFY ORDER BY (src_ip, ja4, host, model_name, window_start);

ALTER TABLE ${database}.ml_all_scores
    ADD COLUMN IF NOT EXISTS time DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS seq UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tick DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1));

ALTER TABLE ${database}.campaigns
    MODIFY COLUMN first_seen DateTime64(3, 'UTC'),
    MODIFY COLUMN last_seen DateTime64(3, 'UTC'),
    MODIFY TTL toDateTime(last_seen) + INTERVAL 90 DAY;

-- Detections as they are now.
CREATE VIEW IF NOT EXISTS ${database}.ml_detected_anomalies_now AS
SELECT * FROM ${database}.ml_detected_anomalies FINAL WHERE is_deleted = 0;

CREATE VIEW IF NOT EXISTS ${database}.campaigns_now AS
SELECT * FROM ${database}.campaigns FINAL WHERE is_deleted = 0;

-- On how many hours of the last 7 days an address was detected. Of rows of others, which have no window, detected_at tells the hour.
CREATE OR REPLACE VIEW ${database}.view_ip_recurrence AS
SELECT
    src_ip,
    toUInt32(uniqExact(if(toUInt32(window_start) > 0, window_start, toStartOfHour(detected_at)))) AS recurrence,
    min(detected_at) AS first_detected,
    max(detected_at) AS last_detected
FROM ${database}.ml_detected_anomalies FINAL
WHERE is_deleted = 0 AND detected_at >= now() - INTERVAL 7 DAY
GROUP BY src_ip;

-- Forms that somebody tries: addresses with at least 10 POST requests to a host in 24 hours.
CREATE VIEW IF NOT EXISTS ${database}.view_form_brute_force AS
SELECT
    src_ip,
    host,
    sum(a.count_post) AS count_post,
    sum(a.count_login_post) AS count_login_post,
    sum(a.hits) AS hits,
    uniqExact(ja4) AS ja4s,
    min(window_start) AS first_window,
    max(window_start) AS last_window
FROM ${database}.agg_host_ip_ja4_1h AS a
WHERE window_start >= now() - INTERVAL 24 HOUR
GROUP BY src_ip, host
HAVING count_post >= 10;

-- Addresses with several JA4 in 24 hours. A connection that is resumed has another JA4 than the first: `identities` counts those that
-- differ in what stays the same, protocol, version, number of ciphers and ciphers.
CREATE VIEW IF NOT EXISTS ${database}.view_ja4_rotation AS
SELECT
    src_ip,
    uniqExact(ja4) AS ja4s,
    uniqExact(concat(substring(ja4, 1, 6), '_', splitByChar('_', ja4)[2])) AS identities,
    sum(a.hits) AS hits,
    uniqExact(host) AS hosts,
    min(window_start) AS first_window,
    max(window_start) AS last_window
FROM ${database}.agg_host_ip_ja4_1h AS a
WHERE window_start >= now() - INTERVAL 24 HOUR AND ja4 != ''
GROUP BY src_ip
HAVING ja4s >= 2;

-- Requests that took 10 s or more, by address and host, in 24 hours: connections that are held open, or a slow page.
CREATE VIEW IF NOT EXISTS ${database}.view_slow_requests AS
SELECT
    src_ip,
    host,
    countIf(duration_ms >= 10000) AS slow_requests,
    count() AS requests,
    slow_requests / requests AS slow_request_ratio,
    max(duration_ms) AS max_duration_ms,
    uniqExactIf(path, duration_ms >= 10000) AS slow_paths
FROM ${database}.http_logs
WHERE time >= now() - INTERVAL 24 HOUR
GROUP BY src_ip, host
HAVING slow_requests >= 3;
