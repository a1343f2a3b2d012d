//! `filter`, `derive`, `enrich.*`, `detect.rules`, `sink.jsonl`, `sink.parquet` in whole pipelines.

mod asn;
mod jsonl;
mod labels;
mod parquet;
mod rows;
mod rules;
mod samples;
