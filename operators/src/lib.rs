//! The operators, one file each; [`registry`] lists them in the order in which data flows.

pub mod decode;
pub mod fingerprint;
pub mod correlate;
mod exchange;

use engine::registry::{Kind, Registry};

/// Every kind of node, from sources to sinks.
pub fn registry() -> Registry {
    let kinds = vec![Kind::of::<correlate::Correlate>()];
    Registry::new(kinds)
}
