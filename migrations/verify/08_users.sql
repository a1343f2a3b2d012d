-- expect: 2
SELECT count() FROM system.users WHERE name IN ('${data_writer}', '${analyst}');
-- expect: 2
SELECT count() FROM system.grants WHERE user_name = '${data_writer}' AND database = '${database}' AND table = 'http_logs_raw';
