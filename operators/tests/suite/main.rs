//! Whole pipelines: operators as they are built from YAML and run by timely.

mod recording;
mod sinks;
