-- Whether the request's line was no JSON until it was repaired, because of what the client sent. What comes through http_logs_raw has 0.
ALTER TABLE ${database}.http_logs ADD COLUMN IF NOT EXISTS repaired UInt8 AFTER has_cookie;
