-- Whether a client sent two versions of its hello, and the packets do not tell which one counts. What comes through http_logs_raw has 0:
-- the view reads what correlators write, and they do not know.
ALTER TABLE ${database}.http_logs ADD COLUMN IF NOT EXISTS ambiguous UInt8 AFTER post_quantum;
