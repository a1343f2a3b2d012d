-- expect: 1
EXISTS ${database}.agg_host_ip_ja4_1h;
-- expect: 1
EXISTS ${database}.agg_header_fingerprint_1h;
-- expect: dict_bot_ip
SELECT name FROM system.dictionaries WHERE database = '${database}' AND name = 'dict_bot_ip';
-- expect: 2
SELECT count() FROM system.tables WHERE database = '${database}' AND name LIKE 'mv_agg_%';
