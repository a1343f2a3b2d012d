-- expect: 2
SELECT count() FROM system.columns WHERE database = '${database}' AND name = 'tick' AND table IN ('http_logs', 'rejected');
