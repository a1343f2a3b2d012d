-- Groups of detections that belong together, and the models that scored them. The newest row of a campaign or model holds.
CREATE TABLE IF NOT EXISTS ${database}.campaigns
(
    campaign_id Int32,
    first_seen DateTime,
    last_seen DateTime,
    members UInt32,
    threat_level LowCardinality(String),
    reason String CODEC(ZSTD(3)),
    details String CODEC(ZSTD(3)),
    updated_at DateTime64(3, 'UTC'),
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY campaign_id
TTL last_seen + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS ${database}.models
(
    model_name LowCardinality(String),
    version UInt32,
    trained_at DateTime,
    rows UInt64,
    accepted UInt8,
    reason String,
    features Array(String),
    parameters String CODEC(ZSTD(3)),
    updated_at DateTime64(3, 'UTC'),
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (model_name, version)
SETTINGS non_replicated_deduplication_window = 1000;
