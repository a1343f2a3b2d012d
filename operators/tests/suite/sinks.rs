//! `filter`, `derive`, `enrich.asn`, `detect.rules`, `sink.jsonl`, `sink.parquet` in whole pipelines.

mod jsonl;
mod rows;
mod samples;
