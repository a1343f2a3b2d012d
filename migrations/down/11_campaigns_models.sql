DROP TABLE IF EXISTS ${database}.models;
DROP TABLE IF EXISTS ${database}.campaigns;
