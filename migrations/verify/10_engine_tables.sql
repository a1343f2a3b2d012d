-- expect: 5
SELECT count() FROM system.tables WHERE database = '${database}' AND name IN ('features', 'detections', 'features_now', 'detections_now', 'rejected');
