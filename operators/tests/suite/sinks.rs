//! `filter`, `derive`, `enrich.asn`, `detect.rules`, `sink.jsonl`, `sink.parquet` in whole pipelines.

mod asn;
mod jsonl;
mod parquet;
mod rows;
mod rules;
mod samples;
