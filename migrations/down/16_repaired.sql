ALTER TABLE ${database}.http_logs DROP COLUMN IF EXISTS repaired;
