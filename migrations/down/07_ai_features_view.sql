DROP VIEW IF EXISTS ${database}.view_ai_features_1h;
