-- Reputation lists, and what the features of an hour are computed from. One row a client (address and fingerprint), host
-- and hour; states are merged when read, so rows may come in any order and number of inserts.

-- asn_reputation.csv: human, bot, unknown
CREATE TABLE IF NOT EXISTS ${database}.asn_reputation
(
    src_asn UInt32,
    label LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY src_asn
SETTINGS non_replicated_deduplication_window = 1000;

-- browser_ja4.csv
CREATE TABLE IF NOT EXISTS ${database}.browser_ja4
(
    ja4 String,
    browser_family LowCardinality(String),
    tls_library LowCardinality(String),
    context String
)
ENGINE = ReplacingMergeTree
ORDER BY ja4
SETTINGS non_replicated_deduplication_window = 1000;

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_bot_ip
(
    prefix String,
    bot_name String DEFAULT ''
)
PRIMARY KEY prefix
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'bot_ip'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(IP_TRIE);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_bot_ja4
(
    ja4 String,
    bot_name String DEFAULT ''
)
PRIMARY KEY ja4
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'bot_ja4'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(COMPLEX_KEY_HASHED);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_asn_reputation
(
    src_asn UInt64,
    label String DEFAULT 'unknown'
)
PRIMARY KEY src_asn
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'asn_reputation'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(HASHED);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_browser_ja4
(
    ja4 String,
    browser_family String DEFAULT '',
    tls_library String DEFAULT '',
    context String DEFAULT ''
)
PRIMARY KEY ja4
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'browser_ja4'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(COMPLEX_KEY_HASHED);

-- `uniq` is exact up to some ten thousands. Variances are of the numerically stable kind.
CREATE TABLE IF NOT EXISTS ${database}.agg_host_ip_ja4_1h
(
    window_start DateTime,
    src_ip IPv6,
    ja4 String,
    host LowCardinality(String),
    src_asn SimpleAggregateFunction(max, UInt32),
    src_as_name SimpleAggregateFunction(max, String),
    src_org SimpleAggregateFunction(max, String),
    src_domain SimpleAggregateFunction(max, String),
    src_country_code SimpleAggregateFunction(max, String),
    anubis_bot_name SimpleAggregateFunction(max, String),
    anubis_bot_action SimpleAggregateFunction(max, String),
    anubis_bot_category SimpleAggregateFunction(max, String),
    tls_alpn SimpleAggregateFunction(max, String),
    http_version SimpleAggregateFunction(max, String),
    first_ns SimpleAggregateFunction(min, UInt64),
    last_ns SimpleAggregateFunction(max, UInt64),
    hits SimpleAggregateFunction(sum, UInt64),
    correlated_count SimpleAggregateFunction(sum, UInt64),
    orphan_count SimpleAggregateFunction(sum, UInt64),
    count_post SimpleAggregateFunction(sum, UInt64),
    count_head SimpleAggregateFunction(sum, UInt64),
    count_login_post SimpleAggregateFunction(sum, UInt64),
    count_asset SimpleAggregateFunction(sum, UInt64),
    count_page SimpleAggregateFunction(sum, UInt64),
    count_direct SimpleAggregateFunction(sum, UInt64),
    count_anomalous_payload SimpleAggregateFunction(sum, UInt64),
    count_http10 SimpleAggregateFunction(sum, UInt64),
    count_xff SimpleAggregateFunction(sum, UInt64),
    count_unusual_ct SimpleAggregateFunction(sum, UInt64),
    count_non_std_port SimpleAggregateFunction(sum, UInt64),
    count_no_sec_fetch SimpleAggregateFunction(sum, UInt64),
    count_generic_accept SimpleAggregateFunction(sum, UInt64),
    count_fake_navigation SimpleAggregateFunction(sum, UInt64),
    count_alpn_mismatch SimpleAggregateFunction(sum, UInt64),
    ip_id_zero_count SimpleAggregateFunction(sum, UInt64),
    mss_1460_count SimpleAggregateFunction(sum, UInt64),
    max_keepalives SimpleAggregateFunction(max, UInt16),
    uniq_paths AggregateFunction(uniq, String),
    uniq_query_params AggregateFunction(uniq, String),
    unique_src_ports AggregateFunction(uniq, UInt16),
    unique_conn_id AggregateFunction(uniq, UInt16, UInt64),
    uniq_agents AggregateFunction(uniq, String),
    minutes AggregateFunction(entropy, UInt8),
    request_size AggregateFunction(varPopStable, UInt64),
    url_depth AggregateFunction(varPopStable, UInt64),
    syn_to_clienthello AggregateFunction(varPopStable, Float64),
    window_size AggregateFunction(avg, UInt32),
    window_mss AggregateFunction(avg, Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(window_start)
ORDER BY (window_start, src_ip, ja4, host)
TTL window_start + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.mv_agg_host_ip_ja4_1h TO ${database}.agg_host_ip_ja4_1h AS
SELECT
    toStartOfHour(l.time) AS window_start,
    l.src_ip AS src_ip,
    l.ja4 AS ja4,
    l.host AS host,
    max(l.src_asn) AS src_asn,
    max(toString(l.src_as_name)) AS src_as_name,
    max(toString(l.src_org)) AS src_org,
    max(toString(l.src_domain)) AS src_domain,
    max(toString(l.src_country_code)) AS src_country_code,
    max(toString(l.anubis_bot_name)) AS anubis_bot_name,
    max(toString(l.anubis_bot_action)) AS anubis_bot_action,
    max(toString(l.anubis_bot_category)) AS anubis_bot_category,
    max(toString(l.tls_alpn)) AS tls_alpn,
    max(toString(l.http_version)) AS http_version,
    min(l.a_timestamp) AS first_ns,
    max(l.a_timestamp) AS last_ns,
    count() AS hits,
    countIf(l.correlated = 1) AS correlated_count,
    countIf(l.correlated = 0) AS orphan_count,
    countIf(l.method = 'POST') AS count_post,
    countIf(l.method = 'HEAD') AS count_head,
    countIf(l.method = 'POST' AND match(l.path, '(?i)/(login|log-in|logon|signin|sign-in|sign_in|auth|authenticate|sessions?|wp-login)([/.]|$)')) AS count_login_post,
    countIf(match(l.path, '[.](css|js|mjs|map|png|jpe?g|gif|webp|avif|svg|ico|bmp|woff2?|ttf|otf|eot|mp3|mp4|webm|wasm)$')) AS count_asset,
    countIf(match(l.path, '(/[^./]*|[.](html?|xhtml|php|aspx?|jsp))$')) AS count_page,
    countIf(l.header_referer = '') AS count_direct,
    countIf(match(concat(l.path, '?', l.query), '(?i)([.][.]/|%2e%2e|<script|%3cscript|union.{1,20}select|etc/passwd|[$][{]|%24%7b|%00)')) AS count_anomalous_payload,
    countIf(l.http_version = 'HTTP/1.0') AS count_http10,
    countIf(l.header_x_forwarded_for != '') AS count_xff,
    countIf(l.header_content_type != '' AND NOT match(l.header_content_type, '(?i)^(application/(json|x-www-form-urlencoded)|multipart/form-data|text/plain)')) AS count_unusual_ct,
    countIf(l.dst_port NOT IN (80, 443)) AS count_non_std_port,
    countIf(l.header_sec_fetch_mode = '') AS count_no_sec_fetch,
    countIf(l.header_accept IN ('', '*/*') AND match(l.path, '(/[^./]*|[.](html?|xhtml|php|aspx?|jsp))$')) AS count_generic_accept,
    countIf(l.header_sec_fetch_mode = 'navigate' AND l.header_sec_fetch_dest NOT IN ('document', 'iframe', 'frame', 'embed', 'object')) AS count_fake_navigation,
    countIf(l.tls_alpn = 'h2' AND l.http_version IN ('HTTP/1.0', 'HTTP/1.1')) AS count_alpn_mismatch,
    countIf(l.correlated = 1 AND l.ip_meta_id = 0) AS ip_id_zero_count,
    countIf(l.tcp_meta_mss = 1460) AS mss_1460_count,
    max(l.keepalives) AS max_keepalives,
    uniqState(l.path) AS uniq_paths,
    uniqStateIf(l.query, l.query != '') AS uniq_query_params,
    uniqState(l.src_port) AS unique_src_ports,
    uniqState(l.src_port, l.b_timestamp) AS unique_conn_id,
    uniqStateIf(l.header_user_agent, l.header_user_agent != '') AS uniq_agents,
    entropyState(toUInt8(toMinute(l.time))) AS minutes,
    varPopStableState(toUInt64(lengthUTF8(l.path) + lengthUTF8(l.query))) AS request_size,
    varPopStableState(toUInt64(countSubstrings(l.path, '/'))) AS url_depth,
    varPopStableStateIf(toFloat64(l.syn_to_clienthello_ms), l.keepalives = 1) AS syn_to_clienthello,
    avgStateIf(toUInt32(l.tcp_meta_window_size), l.keepalives = 1) AS window_size,
    avgStateIf(toFloat64(l.tcp_meta_window_size) / l.tcp_meta_mss, l.keepalives = 1 AND l.tcp_meta_mss > 0) AS window_mss
FROM ${database}.http_logs AS l
GROUP BY window_start, src_ip, ja4, host;

-- What the headers say, by the order in which a client sends them. modern_browser_score is a sum; divided by hits it is
-- 100 with Sec-CH-UA, 70 with Sec-Fetch-Site alone, else 0.
CREATE TABLE IF NOT EXISTS ${database}.agg_header_fingerprint_1h
(
    window_start DateTime,
    src_ip IPv6,
    ja4 String,
    host LowCardinality(String),
    header_order_hash UInt64,
    hits SimpleAggregateFunction(sum, UInt64),
    header_count SimpleAggregateFunction(sum, UInt64),
    has_accept_language SimpleAggregateFunction(max, UInt8),
    has_cookie SimpleAggregateFunction(max, UInt8),
    has_referer SimpleAggregateFunction(max, UInt8),
    has_sec_ch_ua SimpleAggregateFunction(max, UInt8),
    modern_browser_score SimpleAggregateFunction(sum, UInt64),
    ua_ch_mismatch SimpleAggregateFunction(sum, UInt64),
    sec_ch_mobile_mismatch SimpleAggregateFunction(sum, UInt64),
    sec_fetch_mode SimpleAggregateFunction(max, String),
    sec_fetch_dest SimpleAggregateFunction(max, String)
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(window_start)
ORDER BY (window_start, src_ip, ja4, host, header_order_hash)
TTL window_start + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.mv_agg_header_fingerprint_1h TO ${database}.agg_header_fingerprint_1h AS
SELECT
    toStartOfHour(l.time) AS window_start,
    l.src_ip AS src_ip,
    l.ja4 AS ja4,
    l.host AS host,
    cityHash64(l.header_order_signature) AS header_order_hash,
    count() AS hits,
    sum((l.header_user_agent != '') + (l.header_accept != '') + (l.header_accept_encoding != '') + (l.header_accept_language != '')
        + (l.header_content_type != '') + (l.header_x_request_id != '') + (l.header_x_trace_id != '')
        + (l.header_x_forwarded_for != '') + (l.header_referer != '') + (l.header_sec_ch_ua != '')
        + (l.header_sec_ch_ua_mobile != '') + (l.header_sec_ch_ua_platform != '') + (l.header_sec_fetch_dest != '')
        + (l.header_sec_fetch_mode != '') + (l.header_sec_fetch_site != '') + (l.header_sec_fetch_user != '')) AS header_count,
    max(l.header_accept_language != '') AS has_accept_language,
    max(l.has_cookie) AS has_cookie,
    max(l.header_referer != '') AS has_referer,
    max(l.header_sec_ch_ua != '') AS has_sec_ch_ua,
    sum(multiIf(l.header_sec_ch_ua != '', 100, l.header_sec_fetch_site != '', 70, 0)) AS modern_browser_score,
    countIf(l.header_sec_ch_ua != '' AND position(l.header_user_agent, 'Chrome/') = 0) AS ua_ch_mismatch,
    countIf((l.header_sec_ch_ua_mobile = '?1' AND position(l.header_user_agent, 'Mobile') = 0)
        OR (l.header_sec_ch_ua_mobile = '?0' AND position(l.header_user_agent, 'Mobile') > 0)) AS sec_ch_mobile_mismatch,
    max(toString(l.header_sec_fetch_mode)) AS sec_fetch_mode,
    max(toString(l.header_sec_fetch_dest)) AS sec_fetch_dest
FROM ${database}.http_logs AS l
GROUP BY window_start, src_ip, ja4, host, header_order_hash;
