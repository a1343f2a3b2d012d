-- What the detector says. A group that is scored again within its time replaces its row: newest detected_at first.
CREATE TABLE IF NOT EXISTS ${database}.ml_detected_anomalies
(
    detected_at DateTime CODEC(DoubleDelta, ZSTD(1)),
    src_ip IPv6,
    ja4 String,
    host LowCardinality(String),
    bot_name LowCardinality(String),
    browser_family LowCardinality(String),
    anomaly_score Float32,
    raw_anomaly_score Float32,
    threat_level LowCardinality(String),
    model_name LowCardinality(String),
    recurrence UInt32,
    asn_number UInt32,
    asn_org LowCardinality(String),
    asn_detail LowCardinality(String),
    asn_domain LowCardinality(String),
    country_code LowCardinality(String),
    asn_label LowCardinality(String),
    hits UInt64,
    hit_velocity Float32,
    fuzzing_index Float32,
    post_ratio Float32,
    port_exhaustion_ratio Float32,
    max_keepalives UInt32,
    orphan_ratio Float32,
    tcp_jitter_variance Float32,
    tcp_shared_count UInt32,
    true_window_size UInt64,
    window_mss_ratio Float32,
    reason String CODEC(ZSTD(3)),
    campaign_id Int32 DEFAULT -1,
    anubis_bot_name LowCardinality(String),
    anubis_bot_action LowCardinality(String),
    INDEX bloom_src_ip src_ip TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX bloom_ja4 ja4 TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(detected_at)
PARTITION BY toDate(detected_at)
ORDER BY (src_ip, ja4, host, model_name)
TTL detected_at + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS ${database}.ml_all_scores
(
    detected_at DateTime CODEC(DoubleDelta, ZSTD(1)),
    window_start DateTime CODEC(DoubleDelta, ZSTD(1)),
    src_ip IPv6,
    ja4 String,
    host LowCardinality(String),
    anomaly_score Float32,
    raw_anomaly_score Float32,
    threat_level LowCardinality(String),
    campaign_id Int32 DEFAULT -1,
    model_name LowCardinality(String),
    bot_name LowCardinality(String),
    browser_family LowCardinality(String),
    asn_org LowCardinality(String),
    country_code LowCardinality(String),
    hits UInt64,
    anubis_bot_name LowCardinality(String),
    anubis_bot_action LowCardinality(String),
    anubis_bot_category LowCardinality(String),
    INDEX bloom_src_ip src_ip TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ReplacingMergeTree(detected_at)
PARTITION BY toDate(window_start)
ORDER BY (window_start, src_ip, ja4, host, model_name)
TTL window_start + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 10000;

-- On how many hours of the last 7 days an address was detected.
CREATE VIEW IF NOT EXISTS ${database}.view_ip_recurrence AS
SELECT
    src_ip,
    toUInt32(uniqExact(toStartOfHour(detected_at))) AS recurrence,
    min(detected_at) AS first_detected,
    max(detected_at) AS last_detected
FROM ${database}.ml_detected_anomalies
WHERE detected_at >= now() - INTERVAL 7 DAY
GROUP BY src_ip;
