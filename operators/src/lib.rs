//! The operators, one file each; [`registry`] lists them in the order in which data flows.

pub mod decode;
pub mod fingerprint;
pub mod correlate;
pub mod aggregate;
mod exchange;

use engine::registry::{Kind, Registry};

/// Every kind of node, from sources to sinks.
pub fn registry() -> Registry {
    let kinds = vec![Kind::of::<correlate::Correlate>(), Kind::of::<aggregate::Aggregate>()];
    Registry::new(kinds)
}
