//! The SQL functions that are this project's own, and bounded forms of DataFusion's.

pub mod bounded;

pub use functions::{BadArgument, markdown, scalar};
