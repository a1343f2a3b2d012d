//! Whole pipelines: operators as they are built from YAML and run by timely.

mod aggregate;
mod changes;
mod contract;
mod correlate;
mod live;
mod packets;
mod recurrence;
mod replay;
mod sinks;
mod sources;
