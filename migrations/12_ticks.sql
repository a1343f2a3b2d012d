-- The engine's message time of each row, by which sink.clickhouse with read_back knows which rows are confirmed: the dashboards read
-- rows of earlier ticks from here, and later ones from the engine's memory. 0 (1970) for rows that others wrote, which are always read.
ALTER TABLE ${database}.http_logs ADD COLUMN IF NOT EXISTS tick DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1));

ALTER TABLE ${database}.rejected ADD COLUMN IF NOT EXISTS tick DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1));
