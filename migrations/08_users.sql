-- Who may do what: the correlator writes, the analyst reads. Passwords are parameters; the server keeps a hash.
CREATE USER IF NOT EXISTS ${data_writer} IDENTIFIED WITH sha256_password BY '${data_writer_password}';
CREATE USER IF NOT EXISTS ${analyst} IDENTIFIED WITH sha256_password BY '${analyst_password}';
GRANT INSERT, SELECT ON ${database}.http_logs_raw TO ${data_writer};
GRANT SELECT ON ${database}.http_logs TO ${analyst};
GRANT SELECT ON ${database}.agg_host_ip_ja4_1h TO ${analyst};
GRANT SELECT ON ${database}.agg_header_fingerprint_1h TO ${analyst};
GRANT SELECT ON ${database}.ml_detected_anomalies TO ${analyst};
GRANT SELECT ON ${database}.ml_all_scores TO ${analyst};
GRANT SELECT ON ${database}.view_ip_recurrence TO ${analyst};
GRANT SELECT ON ${database}.view_ai_features_1h TO ${analyst};
GRANT dictGet ON ${database}.* TO ${analyst};
