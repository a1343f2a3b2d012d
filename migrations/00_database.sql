-- The database. Its name is the parameter `database`, `mabase_prod` by default.
CREATE DATABASE IF NOT EXISTS ${database};
