DROP VIEW IF EXISTS ${database}.mv_http_logs;
DROP TABLE IF EXISTS ${database}.http_logs;
