//! Where rows leave the dataflow.

pub mod clickhouse;
mod cuts;
pub mod jsonl;
mod lines;
pub mod parquet;
pub mod unix_socket;
mod written;
