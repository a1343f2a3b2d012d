//! The crate's integration tests: nodes as a pipeline runs them.

mod aggregate;
mod correlate;
mod replay;
