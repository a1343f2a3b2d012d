-- expect: 1
EXISTS ${database}.ml_detected_anomalies;
-- expect: 1
EXISTS ${database}.ml_all_scores;
-- expect: view_ip_recurrence
SELECT name FROM system.tables WHERE database = '${database}' AND name LIKE 'view_ip%';
