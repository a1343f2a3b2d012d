-- The features of each client (address and fingerprint) at each host, by hour, with the names that models know them by. What is
-- computed over all groups of an hour (shares, counts of others that look the same) is joined from there.
CREATE VIEW IF NOT EXISTS ${database}.view_ai_features_1h AS
WITH
    traffic AS
    (
        SELECT
            window_start, src_ip, ja4, host,
            max(a.src_asn) AS src_asn, max(a.src_as_name) AS src_as_name, max(a.src_org) AS src_org, max(a.src_domain) AS src_domain,
            max(a.src_country_code) AS src_country_code, max(a.anubis_bot_name) AS anubis_bot_name,
            max(a.anubis_bot_action) AS anubis_bot_action, max(a.anubis_bot_category) AS anubis_bot_category,
            max(a.tls_alpn) AS tls_alpn, max(a.http_version) AS http_version,
            min(a.first_ns) AS first_ns, max(a.last_ns) AS last_ns, sum(a.hits) AS hits,
            sum(a.correlated_count) AS correlated_count, sum(a.orphan_count) AS orphan_count, sum(a.count_post) AS count_post,
            sum(a.count_head) AS count_head, sum(a.count_login_post) AS count_login_post, sum(a.count_asset) AS count_asset,
            sum(a.count_page) AS count_page, sum(a.count_direct) AS count_direct,
            sum(a.count_anomalous_payload) AS count_anomalous_payload, sum(a.count_http10) AS count_http10,
            sum(a.count_xff) AS count_xff, sum(a.count_unusual_ct) AS count_unusual_ct,
            sum(a.count_non_std_port) AS count_non_std_port, sum(a.count_no_sec_fetch) AS count_no_sec_fetch,
            sum(a.count_generic_accept) AS count_generic_accept, sum(a.count_fake_navigation) AS count_fake_navigation,
            sum(a.count_alpn_mismatch) AS count_alpn_mismatch, sum(a.ip_id_zero_count) AS ip_id_zero_count,
            sum(a.mss_1460_count) AS mss_1460_count, max(a.max_keepalives) AS max_keepalives,
            uniqMerge(a.uniq_paths) AS uniq_paths, uniqMerge(a.uniq_query_params) AS uniq_query_params,
            uniqMerge(a.unique_src_ports) AS unique_src_ports, uniqMerge(a.unique_conn_id) AS unique_conn_id,
            uniqMerge(a.uniq_agents) AS uniq_agents, entropyMerge(a.minutes) AS minute_entropy,
            varPopStableMerge(a.request_size) AS request_size_variance, varPopStableMerge(a.url_depth) AS url_depth_variance,
            varPopStableMerge(a.syn_to_clienthello) AS tcp_jitter_variance, avgMerge(a.window_size) AS true_window_size,
            avgMerge(a.window_mss) AS window_mss_ratio
        FROM ${database}.agg_host_ip_ja4_1h AS a
        GROUP BY window_start, src_ip, ja4, host
    ),
    orders AS
    (
        SELECT window_start, header_order_hash, uniqExact(src_ip) AS shared_by
        FROM ${database}.agg_header_fingerprint_1h
        GROUP BY window_start, header_order_hash
    ),
    headers AS
    (
        SELECT
            h.window_start AS window_start, h.src_ip AS src_ip, h.ja4 AS ja4, h.host AS host,
            sum(h.hits) AS header_hits,
            sum(h.header_count) / header_hits AS header_count,
            max(h.has_accept_language) AS has_accept_language, max(h.has_cookie) AS has_cookie,
            max(h.has_referer) AS has_referer, max(h.has_sec_ch_ua) AS has_sec_ch_ua,
            sum(h.modern_browser_score) / header_hits AS modern_browser_score,
            sum(h.ua_ch_mismatch) / header_hits AS ua_ch_mismatch,
            sum(h.sec_ch_mobile_mismatch) / header_hits AS sec_ch_mobile_mismatch,
            uniqExact(h.header_order_hash) AS distinct_header_orders,
            max(h.order_hits) / header_hits AS header_order_confidence,
            max(o.shared_by) AS header_order_shared_count
        FROM
        (
            SELECT
                window_start, src_ip, ja4, host, header_order_hash,
                sum(f.hits) AS hits, hits AS order_hits, sum(f.header_count) AS header_count,
                max(f.has_accept_language) AS has_accept_language, max(f.has_cookie) AS has_cookie,
                max(f.has_referer) AS has_referer, max(f.has_sec_ch_ua) AS has_sec_ch_ua,
                sum(f.modern_browser_score) AS modern_browser_score, sum(f.ua_ch_mismatch) AS ua_ch_mismatch,
                sum(f.sec_ch_mobile_mismatch) AS sec_ch_mobile_mismatch
            FROM ${database}.agg_header_fingerprint_1h AS f
            GROUP BY window_start, src_ip, ja4, host, header_order_hash
        ) AS h
        INNER JOIN orders AS o ON o.window_start = h.window_start AND o.header_order_hash = h.header_order_hash
        GROUP BY window_start, src_ip, ja4, host
    ),
    by_ip AS
    (
        SELECT window_start, src_ip, uniqExact(ja4) AS distinct_ja4_count
        FROM traffic WHERE ja4 != '' GROUP BY window_start, src_ip
    ),
    by_ja4 AS
    (
        SELECT window_start, ja4, uniqExact(src_ip) AS tcp_shared_count
        FROM traffic WHERE ja4 != '' GROUP BY window_start, ja4
    ),
    by_asn AS
    (
        SELECT window_start, ja4, max(hits) / sum(hits) AS ja4_asn_concentration
        FROM (SELECT window_start, ja4, src_asn, sum(t.hits) AS hits FROM traffic AS t WHERE ja4 != '' GROUP BY window_start, ja4, src_asn)
        GROUP BY window_start, ja4
    ),
    by_country AS
    (
        SELECT window_start, ja4, max(hits) / sum(hits) AS ja4_country_concentration
        FROM (SELECT window_start, ja4, src_country_code, sum(t.hits) AS hits FROM traffic AS t WHERE ja4 != '' GROUP BY window_start, ja4, src_country_code)
        GROUP BY window_start, ja4
    )
SELECT
    t.window_start AS window_start, t.src_ip AS src_ip, t.ja4 AS ja4, t.host AS host,
    t.src_asn AS asn_number, t.src_as_name AS asn_detail, t.src_org AS asn_org, t.src_domain AS asn_domain,
    t.src_country_code AS country_code,
    dictGetOrDefault('${database}.dict_asn_reputation', 'label', toUInt64(t.src_asn), 'unknown') AS asn_label,
    if(dictGetOrDefault('${database}.dict_bot_ip', 'bot_name', t.src_ip, '') != '',
        dictGetOrDefault('${database}.dict_bot_ip', 'bot_name', t.src_ip, ''),
        dictGetOrDefault('${database}.dict_bot_ja4', 'bot_name', tuple(t.ja4), '')) AS bot_name,
    dictGetOrDefault('${database}.dict_browser_ja4', 'browser_family', tuple(t.ja4), '') AS browser_family,
    t.anubis_bot_name AS anubis_bot_name, t.anubis_bot_action AS anubis_bot_action, t.anubis_bot_category AS anubis_bot_category,
    toUInt8(t.correlated_count > 0) AS correlated,
    t.hits AS hits,
    t.hits / greatest((toInt64(t.last_ns) - toInt64(t.first_ns)) / 1e9, 1.0) AS hit_velocity,
    t.uniq_query_params / (t.uniq_paths + 1) AS fuzzing_index,
    t.count_post / (t.hits + 1) AS post_ratio,
    t.unique_src_ports / (t.hits + 1) AS port_exhaustion_ratio,
    t.orphan_count / (t.hits + 1) AS orphan_ratio,
    t.max_keepalives AS max_keepalives,
    j.tcp_shared_count AS tcp_shared_count,
    h.header_order_shared_count AS header_order_shared_count,
    h.header_count AS header_count,
    h.has_accept_language AS has_accept_language,
    h.has_cookie AS has_cookie,
    h.has_referer AS has_referer,
    h.modern_browser_score AS modern_browser_score,
    h.ua_ch_mismatch AS ua_ch_mismatch,
    h.has_sec_ch_ua AS has_sec_ch_ua,
    t.ip_id_zero_count / (t.hits + 1) AS ip_id_zero_ratio,
    t.request_size_variance AS request_size_variance,
    t.hits / (t.unique_conn_id + 1) AS multiplexing_efficiency,
    toUInt8(t.mss_1460_count > 0.8 * t.hits AND h.has_sec_ch_ua = 1) AS mss_mobile_mismatch,
    t.count_asset / (t.hits + 1) AS asset_ratio,
    t.count_direct / (t.hits + 1) AS direct_access_ratio,
    toUInt8(t.uniq_agents > 1) AS is_ua_rotating,
    i.distinct_ja4_count AS distinct_ja4_count,
    t.unique_src_ports / t.hits AS src_port_density,
    a.ja4_asn_concentration AS ja4_asn_concentration,
    c.ja4_country_concentration AS ja4_country_concentration,
    toUInt8(t.ja4 != '' AND j.tcp_shared_count <= 1) AS is_rare_ja4,
    h.header_order_confidence AS header_order_confidence,
    h.distinct_header_orders AS distinct_header_orders,
    t.minute_entropy / log2(60) AS temporal_entropy,
    t.uniq_paths / t.hits AS path_diversity_ratio,
    t.url_depth_variance AS url_depth_variance,
    t.count_anomalous_payload / (t.hits + 1) AS anomalous_payload_ratio,
    t.count_head / (t.hits + 1) AS head_ratio,
    t.count_no_sec_fetch / (t.hits + 1) AS sec_fetch_absence_rate,
    t.count_generic_accept / (t.hits + 1) AS generic_accept_ratio,
    t.count_http10 / (t.hits + 1) AS http10_ratio,
    toUInt8(t.anubis_bot_name != '') AS anubis_is_flagged,
    toUInt8(browser_family != '') AS is_known_browser,
    toUInt8((browser_family != '') + h.has_sec_ch_ua + h.has_accept_language + h.has_cookie + (sec_fetch_absence_rate < 0.5)) AS browser_consistency_score,
    toUInt8(t.count_xff > 0) AS has_xff,
    t.count_unusual_ct / (t.hits + 1) AS unusual_content_type_ratio,
    t.count_non_std_port / (t.hits + 1) AS non_standard_port_ratio,
    t.count_login_post / (t.hits + 1) AS login_post_concentration,
    h.sec_ch_mobile_mismatch AS sec_ch_mobile_mismatch,
    t.true_window_size AS true_window_size,
    t.window_mss_ratio AS window_mss_ratio,
    t.tcp_jitter_variance AS tcp_jitter_variance,
    t.count_fake_navigation / (t.hits + 1) AS is_fake_navigation,
    t.count_alpn_mismatch / (t.hits + 1) AS alpn_http_mismatch
FROM traffic AS t
LEFT JOIN headers AS h ON h.window_start = t.window_start AND h.src_ip = t.src_ip AND h.ja4 = t.ja4 AND h.host = t.host
LEFT JOIN by_ip AS i ON i.window_start = t.window_start AND i.src_ip = t.src_ip
LEFT JOIN by_ja4 AS j ON j.window_start = t.window_start AND j.ja4 = t.ja4
LEFT JOIN by_asn AS a ON a.window_start = t.window_start AND a.ja4 = t.ja4
LEFT JOIN by_country AS c ON c.window_start = t.window_start AND c.ja4 = t.ja4;
