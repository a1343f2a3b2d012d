ALTER TABLE ${database}.agg_header_fingerprint_1h RESET SETTING min_bytes_for_wide_part;
ALTER TABLE ${database}.agg_host_ip_ja4_1h RESET SETTING min_bytes_for_wide_part;
ALTER TABLE ${database}.http_logs RESET SETTING min_bytes_for_wide_part;
