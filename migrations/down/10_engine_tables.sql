DROP TABLE IF EXISTS ${database}.rejected;
DROP VIEW IF EXISTS ${database}.detections_now;
DROP VIEW IF EXISTS ${database}.features_now;
DROP TABLE IF EXISTS ${database}.detections;
DROP TABLE IF EXISTS ${database}.features;
