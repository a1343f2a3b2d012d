-- expect: 1
SELECT count() FROM system.columns WHERE database = '${database}' AND table = 'http_logs' AND name = 'repaired';
