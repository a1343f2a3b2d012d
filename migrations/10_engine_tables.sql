-- The engine's own tables, which sink.clickhouse writes: the features of a client at a host in an hour, and which of them are
-- detections. A row that changed is written again with a later updated_at, and replaces the older one; a row that was taken
-- back has is_deleted = 1. What holds now: SELECT … FROM features FINAL WHERE is_deleted = 0, or the views _now.
-- A feature that cannot be computed for a group is NULL. Columns are those of pipelines/features/standard.yaml.
CREATE TABLE IF NOT EXISTS ${database}.features
(
    window_start DateTime,
    host LowCardinality(String),
    src_ip IPv6,
    ja4 String,
    hits Nullable(Int64) CODEC(ZSTD(1)),
    first_seen Nullable(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    last_seen Nullable(DateTime64(9, 'UTC')) CODEC(ZSTD(1)),
    hit_velocity Nullable(Float64) CODEC(ZSTD(1)),
    active_minutes Nullable(Float64) CODEC(ZSTD(1)),
    conn_count Nullable(Int64) CODEC(ZSTD(1)),
    multiplexing_efficiency Nullable(Float64) CODEC(ZSTD(1)),
    max_keepalives Nullable(Int64) CODEC(ZSTD(1)),
    src_port_density Nullable(Float64) CODEC(ZSTD(1)),
    req_size_cv Nullable(Float64) CODEC(ZSTD(1)),
    non_standard_port_ratio Nullable(Float64) CODEC(ZSTD(1)),
    iat_mean_log Nullable(Float64) CODEC(ZSTD(1)),
    iat_cv Nullable(Float64) CODEC(ZSTD(1)),
    iat_entropy Nullable(Float64) CODEC(ZSTD(1)),
    iat_burst_ratio Nullable(Float64) CODEC(ZSTD(1)),
    pause_ratio Nullable(Float64) CODEC(ZSTD(1)),
    lag1_autocorrelation Nullable(Float64) CODEC(ZSTD(1)),
    temporal_entropy Nullable(Float64) CODEC(ZSTD(1)),
    uniq_paths Nullable(Int64) CODEC(ZSTD(1)),
    uniq_query_params Nullable(Int64) CODEC(ZSTD(1)),
    path_diversity_ratio Nullable(Float64) CODEC(ZSTD(1)),
    path_entropy Nullable(Float64) CODEC(ZSTD(1)),
    fuzzing_index Nullable(Float64) CODEC(ZSTD(1)),
    depth_mean Nullable(Float64) CODEC(ZSTD(1)),
    url_depth_variance Nullable(Float64) CODEC(ZSTD(1)),
    asset_ratio Nullable(Float64) CODEC(ZSTD(1)),
    page_ratio Nullable(Float64) CODEC(ZSTD(1)),
    robots_txt Nullable(UInt8) CODEC(ZSTD(1)),
    health_path_ratio Nullable(Float64) CODEC(ZSTD(1)),
    sensitive_path_ratio Nullable(Float64) CODEC(ZSTD(1)),
    post_ratio Nullable(Float64) CODEC(ZSTD(1)),
    head_ratio Nullable(Float64) CODEC(ZSTD(1)),
    other_method_ratio Nullable(Float64) CODEC(ZSTD(1)),
    login_posts Nullable(Int64) CODEC(ZSTD(1)),
    login_failures Nullable(Int64) CODEC(ZSTD(1)),
    login_post_concentration Nullable(Float64) CODEC(ZSTD(1)),
    r4xx_ratio Nullable(Float64) CODEC(ZSTD(1)),
    distinct_404 Nullable(Int64) CODEC(ZSTD(1)),
    r404_distinct Nullable(Float64) CODEC(ZSTD(1)),
    http10_ratio Nullable(Float64) CODEC(ZSTD(1)),
    h2h3_ratio Nullable(Float64) CODEC(ZSTD(1)),
    header_count Nullable(Float64) CODEC(ZSTD(1)),
    modern_browser_score Nullable(Float64) CODEC(ZSTD(1)),
    accept_language_missing Nullable(Float64) CODEC(ZSTD(1)),
    generic_accept_ratio Nullable(Float64) CODEC(ZSTD(1)),
    referer_missing_ratio Nullable(Float64) CODEC(ZSTD(1)),
    cookie_missing_after_first Nullable(Float64) CODEC(ZSTD(1)),
    sec_fetch_absence_rate Nullable(Float64) CODEC(ZSTD(1)),
    is_fake_navigation Nullable(Float64) CODEC(ZSTD(1)),
    chromium_ratio Nullable(Float64) CODEC(ZSTD(1)),
    ch_ua_missing_if_chromium Nullable(Float64) CODEC(ZSTD(1)),
    ua_ch_mismatch Nullable(Float64) CODEC(ZSTD(1)),
    uas_distinct Nullable(Int64) CODEC(ZSTD(1)),
    http_library_ratio Nullable(Float64) CODEC(ZSTD(1)),
    automation_ua_ratio Nullable(Float64) CODEC(ZSTD(1)),
    has_xff Nullable(UInt8) CODEC(ZSTD(1)),
    orphan_ratio Nullable(Float64) CODEC(ZSTD(1)),
    alpn_http_mismatch Nullable(Float64) CODEC(ZSTD(1)),
    sni_host_mismatch Nullable(Float64) CODEC(ZSTD(1)),
    sni_missing Nullable(Float64) CODEC(ZSTD(1)),
    tls12_or_lower Nullable(Float64) CODEC(ZSTD(1)),
    chromium_tls_mismatch Nullable(Float64) CODEC(ZSTD(1)),
    ttl_os_mismatch Nullable(Float64) CODEC(ZSTD(1)),
    ip_id_zero_ratio Nullable(Float64) CODEC(ZSTD(1)),
    window_mss_ratio Nullable(Float64) CODEC(ZSTD(1)),
    syn_to_ch_cv Nullable(Float64) CODEC(ZSTD(1)),
    final UInt8,
    updated_at DateTime64(3, 'UTC'),
    is_deleted UInt8
)
ENGINE = ReplacingMergeTree(updated_at)
PARTITION BY toDate(window_start)
ORDER BY (window_start, host, src_ip, ja4)
TTL window_start + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;

-- The columns of features, and what makes the row a detection.
CREATE TABLE IF NOT EXISTS ${database}.detections AS ${database}.features
ENGINE = ReplacingMergeTree(updated_at)
PARTITION BY toDate(window_start)
ORDER BY (window_start, host, src_ip, ja4)
TTL window_start + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;

ALTER TABLE ${database}.detections
    ADD COLUMN IF NOT EXISTS threat_level LowCardinality(String) AFTER final,
    ADD COLUMN IF NOT EXISTS rules String CODEC(ZSTD(3)) AFTER threat_level,
    ADD COLUMN IF NOT EXISTS reason String CODEC(ZSTD(3)) AFTER rules;

CREATE VIEW IF NOT EXISTS ${database}.features_now AS SELECT * FROM ${database}.features FINAL WHERE is_deleted = 0;

CREATE VIEW IF NOT EXISTS ${database}.detections_now AS SELECT * FROM ${database}.detections FINAL WHERE is_deleted = 0;

-- Requests of the web server's log that were not understood.
CREATE TABLE IF NOT EXISTS ${database}.rejected
(
    time DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    seq UInt64 CODEC(DoubleDelta, ZSTD(1)),
    reason LowCardinality(String),
    line String CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (time, seq)
TTL toDateTime(time) + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
