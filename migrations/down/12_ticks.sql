ALTER TABLE ${database}.rejected DROP COLUMN IF EXISTS tick;
ALTER TABLE ${database}.http_logs DROP COLUMN IF EXISTS tick;
