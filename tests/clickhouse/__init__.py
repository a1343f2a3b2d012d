"""ClickHouse: the schema, the sink, and what they do when the server fails."""
