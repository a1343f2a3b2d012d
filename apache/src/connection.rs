//! What is known of a connection.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::h2::Signature;

/// A connection of a client's. Requests of HTTP/2 are worked on by several threads at once, and all see the same one.
pub struct Connection {
    /// The client's end, as in the packets: not what mod_remoteip makes of it.
    pub client: Endpoint,
    /// The server's end.
    pub server: Endpoint,
    /// The frames that it began with, once its first request has been read; never for HTTP/1.
    pub h2: OnceLock<Signature>,
    /// What mod_ssl says of it; `None` without TLS.
    pub tls: OnceLock<Option<Tls>>,
    requests: AtomicU32,
}

/// An address and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Without a zone (`%eth0`), which is this machine's name for an interface; empty for a unix socket.
    pub ip: String,
    /// 0 for a unix socket.
    pub port: u16,
}

/// What mod_ssl says of a connection. Texts are empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Such as `TLSv1.3`.
    pub protocol: String,
    /// In OpenSSL's spelling.
    pub cipher: String,
    /// The name that the client asked for.
    pub sni: String,
    /// Whether an earlier session went on.
    pub resumed: bool,
}

impl Endpoint {
    /// From the text of an address; anything but digits, letters, dots and colons is no part of one.
    pub fn new(ip: &[u8], port: u16) -> Self {
        let of_address = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
        let ip: String = ip.iter().take_while(of_address).take(45).map(|byte| char::from(*byte)).collect();
        Self { ip, port }
    }
}

impl Connection {
    /// One that has just been accepted.
    pub fn new(client: Endpoint, server: Endpoint) -> Self {
        let (h2, tls) = (OnceLock::new(), OnceLock::new());
        Self { client, server, h2, tls, requests: AtomicU32::new(0) }
    }

    /// The number of the next request, from 1.
    pub fn next_request(&self) -> u32 {
        self.requests.fetch_add(1, Relaxed).wrapping_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_zone() {
        assert_eq!(Endpoint::new(b"fe80::1%eth0", 1).ip, "fe80::1");
        assert_eq!(Endpoint::new(b"192.0.2.1", 1).ip, "192.0.2.1");
        assert_eq!(Endpoint::new(b"\"", 1).ip, "");
    }

    #[test]
    fn requests_are_counted_from_one() {
        let connection = Connection::new(Endpoint::default(), Endpoint::default());
        assert_eq!([connection.next_request(), connection.next_request()], [1, 2]);
    }
}
