DROP VIEW IF EXISTS ${database}.view_ip_recurrence;
DROP TABLE IF EXISTS ${database}.ml_all_scores;
DROP TABLE IF EXISTS ${database}.ml_detected_anomalies;
