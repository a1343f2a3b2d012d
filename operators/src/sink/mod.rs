//! Where rows leave the dataflow.

pub mod clickhouse;
mod cuts;
mod delivery;
pub mod jsonl;
mod lines;
pub mod parquet;
mod standard_output;
pub mod syslog;
pub mod unix_socket;
pub mod webhook;
mod written;
