//! What is known of a connection.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::h2::Signature;
use crate::record;

/// A connection of a client's. Requests of HTTP/2 are worked on by several threads at once, and all see the same one.
pub struct Connection {
    /// The client's end, as in the packets: not what mod_remoteip makes of it.
    client: Endpoint,
    /// Both ends, as they stand in each of its records.
    ends: String,
    /// What mod_ssl says of it, likewise; nothing without TLS.
    tls: OnceLock<String>,
    /// The frames that it began with, likewise, once its first request has been read; nothing for HTTP/1.
    h2: OnceLock<String>,
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
    pub fn new(client: Endpoint, server: &Endpoint) -> Self {
        let ends = record::of_ends(&client, server);
        Self { client, ends, tls: OnceLock::new(), h2: OnceLock::new(), requests: AtomicU32::new(0) }
    }

    /// The client's end.
    pub fn client(&self) -> &Endpoint {
        &self.client
    }

    /// Takes what mod_ssl says. The first time counts.
    pub fn set_tls(&self, tls: &Tls) {
        self.tls.get_or_init(|| record::of_tls(tls));
    }

    /// Takes the frames that it began with. The first time counts.
    pub fn set_h2(&self, signature: &Signature) {
        self.h2.get_or_init(|| record::of_h2(signature));
    }

    /// Both ends as keys of a record.
    pub fn ends(&self) -> &str {
        &self.ends
    }

    /// What else is known of it, as keys of a record.
    pub fn facts(&self) -> [&str; 2] {
        [&self.tls, &self.h2].map(|known| known.get().map_or("", String::as_str))
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
        let connection = Connection::new(Endpoint::default(), &Endpoint::default());
        assert_eq!([connection.next_request(), connection.next_request()], [1, 2]);
    }
}
