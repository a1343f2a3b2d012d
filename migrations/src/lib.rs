//! ClickHouse: the schema, what applies it, and the connection.
