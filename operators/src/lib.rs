//! The operators, one file each; [`registry`] lists them in the order in which data flows.

pub mod correlate;
pub mod decode;
mod exchange;
pub mod fingerprint;
pub mod format;
pub mod source;
pub mod tls;

use engine::registry::{Kind, Registry};

/// Every kind of node, from sources to sinks.
pub fn registry() -> Registry {
    let kinds = vec![
        Kind::of::<source::pcap::PcapSource>(),
        Kind::of::<source::file::FileSource>(),
        Kind::of::<source::unix_socket::UnixSocket>(),
        Kind::of::<tls::client_hello::ClientHello>(),
        Kind::of::<correlate::Correlate>(),
    ];
    Registry::new(kinds)
}
