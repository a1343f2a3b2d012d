//! The operators, one file each; [`registry`] lists them in the order in which data flows.

pub mod correlate;
pub mod decode;
mod exchange;
pub mod fingerprint;
pub mod format;
pub mod source;

use engine::registry::{Kind, Registry};

/// Every kind of node, from sources to sinks.
pub fn registry() -> Registry {
    let kinds = vec![Kind::of::<source::file::FileSource>(), Kind::of::<correlate::Correlate>()];
    Registry::new(kinds)
}
