-- expect: 3
SELECT countIf(name = 'mv_http_logs' AND as_select LIKE '%toUnixTimestamp(parseDateTimeBestEffortOrZero(j.time)) > 0%')
    + countIf(name = 'mv_agg_host_ip_ja4_1h' AND as_select LIKE '%duration_ms * 1000000%')
    + countIf(name = 'mv_agg_header_fingerprint_1h' AND as_select LIKE '%Mac OS X%')
FROM system.tables WHERE database = '${database}';
