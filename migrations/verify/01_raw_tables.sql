-- expect: 1
EXISTS ${database}.http_logs_raw;
