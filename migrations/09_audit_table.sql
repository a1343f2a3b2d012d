-- Who did what to which entity, when; an analyst's classification is an entry too. Kept for a year.
CREATE TABLE IF NOT EXISTS ${database}.audit_logs
(
    timestamp DateTime64(3) DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    user_name LowCardinality(String),
    action LowCardinality(String),
    entity_type LowCardinality(String),
    entity_id String,
    classification LowCardinality(String) DEFAULT '',
    comment String DEFAULT '' CODEC(ZSTD(3)),
    details String DEFAULT '' CODEC(ZSTD(3)),
    client_ip IPv6 DEFAULT toIPv6('::')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, user_name, action)
TTL toDateTime(timestamp) + INTERVAL 1 YEAR
SETTINGS non_replicated_deduplication_window = 1000;
