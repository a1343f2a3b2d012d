-- expect: view_ai_features_1h
SELECT name FROM system.tables WHERE database = '${database}' AND name = 'view_ai_features_1h';
-- expect: 0
SELECT count() FROM ${database}.view_ai_features_1h WHERE window_start = toDateTime(0);
