//! The fingerprint of a hello that is there as bytes.

use thiserror::Error;

use super::fingerprint::{Transport, ja3, ja4::Ja4};
use super::tls::{self, ClientHello, Outcome, Reason};

/// The longest hello that [`fingerprint`] takes.
const MAX: usize = 1 << 20;

/// Fingerprints of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// JA4.
    pub ja4: String,
    /// JA3, unhashed.
    pub ja3: String,
    /// MD5 of `ja3`.
    pub ja3_hash: String,
    /// What JA4 is made of; gives its other forms.
    pub values: Ja4,
}

impl Fingerprint {
    /// The fingerprints of a parsed hello.
    pub fn of(hello: &ClientHello<'_>, transport: Transport) -> Self {
        let (values, ja3) = (Ja4::new(hello, transport), ja3::ja3(hello));
        Self { ja4: values.hashed(), ja3_hash: ja3::hash(&ja3), ja3, values }
    }
}

/// Why bytes have no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The bytes do not begin with a ClientHello.
    #[error("not a ClientHello")]
    NotTls,
    /// The hello is not all there.
    #[error("the hello goes on: at least {0} bytes are needed")]
    NeedMore(usize),
    /// It begins as a ClientHello and is none.
    #[error("broken: {0}")]
    Broken(#[from] Reason),
}

/// Fingerprints the ClientHello at the front of `stream`, what a client sends over TCP: TLS records, one or several.
///
/// # Errors
/// If there is none, or not all of it.
pub fn fingerprint(stream: &[u8]) -> Result<Fingerprint, Fault> {
    match tls::client_hello(stream, &mut Vec::new(), MAX) {
        Outcome::NotTls => Err(Fault::NotTls),
        Outcome::NeedMore(need) => Err(Fault::NeedMore(need)),
        Outcome::Broken(reason) => Err(Fault::Broken(reason)),
        Outcome::Hello(hello, _) => Ok(Fingerprint::of(&hello, Transport::Tcp)),
    }
}
