-- As 06 and 11 made them. Of a group's detections in several hours of a day the last one stays.
DROP VIEW IF EXISTS ${database}.view_slow_requests;
DROP VIEW IF EXISTS ${database}.view_ja4_rotation;
DROP VIEW IF EXISTS ${database}.view_form_brute_force;
DROP VIEW IF EXISTS ${database}.campaigns_now;
DROP VIEW IF EXISTS ${database}.ml_detected_anomalies_now;

CREATE OR REPLACE VIEW ${database}.view_ip_recurrence AS
SELECT
    src_ip,
    toUInt32(uniqExact(toStartOfHour(detected_at))) AS recurrence,
    min(detected_at) AS first_detected,
    max(detected_at) AS last_detected
FROM ${database}.ml_detected_anomalies
WHERE detected_at >= now() - INTERVAL 7 DAY
GROUP BY src_ip;

ALTER TABLE ${database}.campaigns
    MODIFY COLUMN first_seen DateTime,
    MODIFY COLUMN last_seen DateTime,
    MODIFY TTL last_seen + INTERVAL 90 DAY;

ALTER TABLE ${database}.ml_all_scores
    DROP COLUMN IF EXISTS time,
    DROP COLUMN IF EXISTS seq,
    DROP COLUMN IF EXISTS tick;

ALTER TABLE ${database}.ml_detected_anomalies
    MODIFY ORDER BY (src_ip, ja4, host, model_name);

ALTER TABLE ${database}.ml_detected_anomalies
    DROP COLUMN IF EXISTS time,
    DROP COLUMN IF EXISTS seq,
    DROP COLUMN IF EXISTS window_start,
    DROP COLUMN IF EXISTS updated_at,
    DROP COLUMN IF EXISTS is_deleted;
