-- expect: 2
SELECT count() FROM system.tables WHERE database = '${database}' AND name IN ('campaigns', 'models');
