//! The crate beside other implementations.

mod differential;
#[path = "../../examples/parsers/second.rs"]
mod second;
