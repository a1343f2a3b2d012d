-- expect: 1
EXISTS ${database}.http_logs;
-- expect: mv_http_logs
SELECT name FROM system.tables WHERE database = '${database}' AND name = 'mv_http_logs';
