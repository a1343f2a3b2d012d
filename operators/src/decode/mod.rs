//! From captured frames to TLS ClientHellos.
//!
//! The files mirror the network stack: `link`, `ip` and `tcp` turn a frame into a segment without copying, `flow`,
//! `assembly` and `connection` keep what little is needed until a hello is complete, `tls` parses it, and
//! [`HelloExtractor`] ties them together. Nothing here can panic on what the network sends, and every limit that is met is counted.

mod assembly;
mod bytes;
mod connection;
mod counters;
mod extractor;
mod flow;
mod hello;
mod ip;
mod link;
mod packet;
mod tcp;
pub mod tls;

#[cfg(test)]
mod cases;
#[cfg(test)]
pub(crate) mod sample;

pub use counters::Counters;
pub use extractor::{HelloExtractor, Limits};
pub use hello::Hello;
pub use ip::IpMeta;
pub use link::is_supported;
pub use packet::{Packet, Skip, Transport, decode};
pub use tcp::{Segment, TcpMeta};
