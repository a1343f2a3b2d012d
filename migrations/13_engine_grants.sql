-- Rights on the engine's own tables, for the users of 08: data_writer is who sink.clickhouse writes as and, with read_back, reads as;
-- the views behind http_logs are run as who made them. The analyst reads.
GRANT INSERT, SELECT ON ${database}.http_logs TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.features TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.detections TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.rejected TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.campaigns TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.models TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.ml_all_scores TO ${data_writer};
GRANT INSERT, SELECT ON ${database}.ml_detected_anomalies TO ${data_writer};
GRANT SELECT ON ${database}.features TO ${analyst};
GRANT SELECT ON ${database}.features_now TO ${analyst};
GRANT SELECT ON ${database}.detections TO ${analyst};
GRANT SELECT ON ${database}.detections_now TO ${analyst};
GRANT SELECT ON ${database}.rejected TO ${analyst};
GRANT SELECT ON ${database}.campaigns TO ${analyst};
GRANT SELECT ON ${database}.models TO ${analyst};
