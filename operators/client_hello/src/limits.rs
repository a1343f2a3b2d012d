//! Bounds on memory and work.

use std::time::Duration;

use super::packet::Tunnels;

/// What an extractor keeps and looks at, at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections tracked at a time.
    pub max_flows: usize,
    /// Segments, CRYPTO frames or DTLS fragments that may come for one hello from when a part of it is buffered.
    /// Repetitions count: each costs work.
    pub max_segments: usize,
    /// Bytes from the start of a hello's first record to the end of its last.
    pub max_hello_bytes: usize,
    /// Bytes of memory for what is buffered of all connections together. Beyond, connections that hold bytes are
    /// evicted, first those whose hello is out. Fragments of IP packets have 8 MiB besides.
    pub max_buffered_bytes: usize,
    /// A connection is forgotten when no packet came for this long, in the time of the packets.
    pub flow_timeout: Duration,
    /// How long a hello waits for its server's acknowledgement, in the time of the packets: that shows which bytes the server
    /// took if its client has sent two versions. 0 for hellos that leave at once.
    pub hold: Duration,
    /// Destination ports of the connections to look at; empty for all.
    pub ports: Vec<u16>,
    /// Encapsulations that are looked into.
    pub tunnels: Tunnels,
    /// Look for hellos behind the plain text of SMTP, IMAP, POP3 and PostgreSQL too.
    pub starttls: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 100_000,
            max_segments: 8192,
            max_hello_bytes: 64 << 10,
            max_buffered_bytes: 128 << 20,
            flow_timeout: Duration::from_secs(30),
            hold: Duration::from_millis(400),
            ports: Vec::new(),
            tunnels: Tunnels::default(),
            starttls: false,
        }
    }
}
