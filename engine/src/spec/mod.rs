//! A pipeline as written: YAML with places. Nothing here knows what a kind means.

mod diagnostic;
mod located;
pub mod options;
mod pipeline;
mod spool;
mod tree;

pub use diagnostic::{Diagnostic, Sources, nearest};
pub use located::{Located, Span};
pub use pipeline::{From, NodeSpec, Pipeline, ServeSpec, humantime_duration};
pub use spool::{SpoolSpec, WhenFull};
pub use tree::{Tree, Value};
