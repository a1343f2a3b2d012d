-- expect: 3
SELECT count() FROM system.tables WHERE database = '${database}' AND engine_full LIKE '%min_bytes_for_wide_part = 268435456%';
