-- expect: 16
SELECT count() FROM system.grants WHERE user_name = '${data_writer}' AND database = '${database}' AND access_type IN ('INSERT', 'SELECT') AND table IN (
    'http_logs', 'features', 'detections', 'rejected', 'campaigns', 'models', 'ml_all_scores', 'ml_detected_anomalies');
-- expect: 7
SELECT count() FROM system.grants WHERE user_name = '${analyst}' AND database = '${database}' AND access_type = 'SELECT' AND table IN (
    'features', 'features_now', 'detections', 'detections_now', 'rejected', 'campaigns', 'models');
