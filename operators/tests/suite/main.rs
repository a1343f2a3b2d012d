//! Whole pipelines: operators as they are built from YAML and run by timely.

mod replay;
mod sinks;
