-- expect: 8
SELECT count() FROM system.columns WHERE database = '${database}' AND (table = 'ml_detected_anomalies' AND name IN ('time', 'seq', 'window_start', 'updated_at', 'is_deleted')
    OR table = 'ml_all_scores' AND name IN ('time', 'seq', 'tick'));

-- expect: src_ip, ja4, host, model_name, window_start
SELECT sorting_key FROM system.tables WHERE database = '${database}' AND name = 'ml_detected_anomalies';

-- expect: 5
SELECT count() FROM system.tables WHERE database = '${database}' AND name IN ('ml_detected_anomalies_now', 'campaigns_now', 'view_form_brute_force', 'view_ja4_rotation', 'view_slow_requests');

-- expect: 1
SELECT countIf(position(create_table_query, 'is_deleted') > 0) FROM system.tables WHERE database = '${database}' AND name = 'view_ip_recurrence';
