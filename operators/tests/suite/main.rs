//! The crate's integration tests: nodes as a pipeline runs them.

mod correlate;
mod replay;
