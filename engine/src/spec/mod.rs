//! A pipeline as written: YAML with places. Nothing here knows what a kind means.

mod beside;
mod bytes;
mod diagnostic;
mod fault;
mod located;
mod modes;
pub mod options;
mod overrides;
mod pipeline;
mod serve;
mod setting;
mod spool;
mod tree;

pub use beside::Beside;
pub use bytes::Bytes;
pub use diagnostic::{Diagnostic, Sources, nearest};
pub use located::{Located, Span};
pub use overrides::apply_overrides;
pub use pipeline::{Durable, From, NodeSpec, Pipeline, Rows, humantime_duration};
pub use serve::{QueryLimits, ServeSpec};
pub use setting::{Change, Setting};
pub use spool::{SpoolSpec, WhenFull};
pub use tree::{Tree, Value};
