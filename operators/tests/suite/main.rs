//! The crate's integration tests: nodes as a pipeline runs them.

mod aggregate;
mod aggregate_speed;
mod correlate;
mod replay;
