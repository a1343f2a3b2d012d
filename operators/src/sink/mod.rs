//! Where rows leave the dataflow.

pub mod jsonl;
pub mod parquet;
