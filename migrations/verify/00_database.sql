-- expect: ${database}
SHOW DATABASES LIKE '${database}';
