-- Parts of less than 256 MiB are kept in one file each, rather than in two or more for each column. An insert of http_logs makes
-- one of 80 columns, with the views one in each of their tables, which are soon merged; making and removing the
-- files costs more than the bytes in them. Larger parts, which is where nearly all rows are, stay as they were.
ALTER TABLE ${database}.http_logs MODIFY SETTING min_bytes_for_wide_part = 268435456;

ALTER TABLE ${database}.agg_host_ip_ja4_1h MODIFY SETTING min_bytes_for_wide_part = 268435456;

ALTER TABLE ${database}.agg_header_fingerprint_1h MODIFY SETTING min_bytes_for_wide_part = 268435456;
