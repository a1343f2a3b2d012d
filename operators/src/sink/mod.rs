//! Where rows leave the dataflow.

pub mod clickhouse;
mod cuts;
pub mod jsonl;
pub mod parquet;
