-- What a correlator that knows nothing of the schema writes: a JSON object a row. mv_http_logs makes rows of them.
--
-- ZSTD(3): text that is written once, read once by the view, and kept for a day. No de-duplication by content alone:
-- two requests may be equal. A batch with an insert_deduplication_token is recognised among the last 10,000.
CREATE TABLE IF NOT EXISTS ${database}.http_logs_raw
(
    raw_json String CODEC(ZSTD(3)),
    ingest_time DateTime DEFAULT now() CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(ingest_time)
ORDER BY ingest_time
TTL ingest_time + INTERVAL 1 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
