-- expect: 1
EXISTS ${database}.audit_logs;
-- expect: 14
SELECT count() AS total_tables FROM system.tables WHERE database = '${database}' AND name IN (
    'http_logs_raw', 'http_logs', 'agg_host_ip_ja4_1h', 'agg_header_fingerprint_1h', 'ml_detected_anomalies', 'ml_all_scores',
    'ref_bot_networks', 'anubis_ua_rules', 'anubis_ip_rules', 'anubis_asn_rules', 'anubis_country_rules', 'audit_logs', 'bot_ip', 'bot_ja4');
