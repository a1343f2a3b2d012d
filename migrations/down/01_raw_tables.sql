DROP TABLE IF EXISTS ${database}.http_logs_raw;
