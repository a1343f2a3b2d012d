//! From captured packets, or from the bytes of a message, to TLS ClientHellos and their fingerprints.
//!
//! No capture, no runtime, no I/O: bytes go in, [`Hello`]s come out. The files mirror the network stack: `link`, `ip`,
//! `fragments`, `tunnel` and `tcp` turn a frame into a segment or datagram without copying (`layer` names what they
//! cannot look into), `flow`, `assembly` and `connection` keep what little is needed until a hello is complete,
//! `prelude` passes over what stands before it, `records`, `tls`, `quic` and `dtls` parse it, and [`HelloExtractor`]
//! ties them together. Nothing here can panic on what the network sends, and every limit that is met is counted.
//!
//! The parser of the message, [`tls`], is the crate's own. tls-parser reads the same in every hello that was recorded, but
//! takes 3 to 17 times as long and 13 allocations, which makes the way from packets to fingerprints 18 to 23 % longer; and
//! of a hello with one malformed extension it loses those that follow, where JA4 counts an extension whatever it
//! contains. It is the second implementation: tests and the fuzzer compare the two, `examples/parsers/second.rs` lists where
//! they differ, and `benches/README.md` has the figures ("The parser").
//!
//! # From a byte slice
//!
//! ```
//! # let stream = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03________________________________\x00\x00\x02\x13\x01\x01\x00";
//! match client_hello::fingerprint(stream) {
//!     Ok(found) => println!("{} {}", found.ja4, found.ja3_hash),
//!     Err(fault) => println!("{fault}"),
//! }
//! # assert_eq!(client_hello::fingerprint(stream).unwrap().ja4, "t12i010000_0f2cb44170f4_000000000000");
//! ```
//!
//! # From packets
//!
//! ```
//! use client_hello::{Frame, HelloExtractor, Limits};
//!
//! let mut extractor = HelloExtractor::new(Limits::default());
//! # let frames: Vec<(i64, Vec<u8>)> = Vec::new();
//! const ETHERNET: i32 = 1;
//! for (nanoseconds, frame) in &frames {
//!     extractor.packet(&Frame::whole(*nanoseconds, ETHERNET, frame), &mut |hello| println!("{}", hello.ja4));
//! }
//! extractor.finish(&mut |hello| println!("{}", hello.ja4));
//! ```

mod assembly;
mod bytes;
mod checksum;
mod connection;
mod contest;
mod counters;
mod datagrams;
mod dispute;
mod dtls;
mod extractor;
pub mod fingerprint;
mod flow;
mod fragments;
mod hello;
mod http;
mod ip;
mod judge;
mod layer;
mod limits;
mod link;
mod message;
mod packet;
mod prelude;
mod queue;
mod quic;
mod records;
mod server;
mod streams;
mod table;
mod tcp;
pub mod tls;
mod trust;
mod tunnel;
mod waiting;

#[cfg(test)]
mod cases;
#[cfg(test)]
pub(crate) mod sample;

pub use counters::Counters;
pub use extractor::{Frame, HelloExtractor};
pub use hello::Hello;
pub use ip::IpMeta;
pub use layer::Layer;
pub use limits::Limits;
pub use link::is_supported;
pub use message::{Fault, Fingerprint, fingerprint};
pub use packet::{Datagram, Endpoints, Packet, Skip, Transport, Tunnels, endpoints};
pub use tcp::{Segment, TcpMeta};
