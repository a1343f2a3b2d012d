//! The ClientHello of TLS (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2) at the front of a byte stream.
//!
//! The parser borrows from the stream, keeps nothing between calls, and says how sure it is: not TLS, more bytes needed
//! (and how many), broken, or a hello.

use thiserror::Error;

use super::bytes::{take_vector, u8_at, u16_at, u16s};
use super::records::{self, HANDSHAKE, HANDSHAKE_HEADER, MAX_RECORD, NoFrame, RECORD_HEADER, Walk};

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// What the front of a stream amounts to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// No TLS client talks here: the stream starts with something else than a ClientHello.
    NotTls,
    /// Undecided; it cannot be decided before the stream is this long.
    NeedMore(usize),
    /// It starts as a ClientHello and cannot become one.
    Broken(Reason),
    /// A ClientHello, and where in the stream the record ends in which it ends (this may lie beyond what is there yet).
    Hello(ClientHello<'a>, usize),
}

/// How a ClientHello can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    /// A handshake record without content, or larger than allowed.
    #[error("record length out of range")]
    RecordLength,
    /// Another record type in the middle of the message.
    #[error("hello interrupted by another record type")]
    Interrupted,
    /// The message announces more bytes than the caller allows.
    #[error("hello longer than the limit")]
    TooLong,
    /// The message ends before its mandatory fields do.
    #[error("hello shorter than its fields")]
    TooShort,
    /// An odd number of bytes as cipher suites.
    #[error("cipher suites of odd length")]
    CipherSuites,
    /// An extension reaches beyond the end of the list.
    #[error("extension beyond the end of the list")]
    Extensions,
}

/// Looks for a ClientHello of at most `max` bytes at the front of `stream`. One that is spread over several records is
/// put together in `joined`, whose content does not matter.
pub fn client_hello<'a>(stream: &'a [u8], joined: &'a mut Vec<u8>, max: usize) -> Outcome<'a> {
    resume(stream, &mut Walk::default(), joined, max)
}

/// The same for a stream of which the front has been walked in vain, as `walk` says; the bytes walked may not change.
pub(crate) fn resume<'a>(stream: &'a [u8], walk: &mut Walk, joined: &'a mut Vec<u8>, max: usize) -> Outcome<'a> {
    if !may_start(stream) {
        return Outcome::NotTls;
    }
    let frame = match records::frame(stream, walk, max) {
        Ok(frame) => frame,
        Err(NoFrame::NeedMore(need)) => return Outcome::NeedMore(need),
        Err(NoFrame::Broken(reason)) => return Outcome::Broken(reason),
    };
    let body = match frame.in_one_record {
        true => &stream[RECORD_HEADER + HANDSHAKE_HEADER..][..frame.body_len],
        false => {
            records::join(stream, frame.body_len, joined);
            &joined[HANDSHAKE_HEADER..]
        }
    };
    match ClientHello::parse(body) {
        Ok(hello) => Outcome::Hello(hello, frame.end),
        Err(reason) => Outcome::Broken(reason),
    }
}

/// Whether a stream that begins with these bytes can begin with a ClientHello, as far as they go.
pub fn may_start(stream: &[u8]) -> bool {
    let fits = |at: usize, test: fn(u8) -> bool| u8_at(stream, at).is_none_or(test);
    fits(0, |kind| kind == HANDSHAKE)
        && fits(1, |major| major == 3)
        && fits(2, |minor| minor <= 4)
        && fits(5, |message| message == CLIENT_HELLO)
}

/// Whether these bytes are certainly the first of a ClientHello: both headers are there and agree.
pub fn surely_starts(stream: &[u8]) -> bool {
    may_start(stream)
        && u16_at(stream, 3).is_some_and(|len| (1..=MAX_RECORD).contains(&usize::from(len)))
        && u8_at(stream, RECORD_HEADER + 1) == Some(0)
        && u8_at(stream, RECORD_HEADER + HANDSHAKE_HEADER) == Some(3)
}

/// Whether these bytes begin a record that no client sends before or inside its hello: the stream's start was missed,
/// or a server sends.
pub fn is_past_hello(stream: &[u8]) -> bool {
    match stream {
        [HANDSHAKE, 3, 0..=4, _, _, message, ..] => *message == SERVER_HELLO,
        [CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA, 3, 0..=4, ..] => true,
        _ => false,
    }
}

/// What the client sent after its first hello.
#[derive(Debug, PartialEq, Eq)]
pub enum Sequel {
    /// Bytes that may stand before a second hello (RFC 8446 sections 4.2.10 and D.4): a ChangeCipherSpec, or early
    /// data if the first hello offered it. The record ends here (this may lie beyond what is there yet).
    Skip(usize),
    /// A second ClientHello begins.
    Hello,
    /// Undecided before the stream is this long.
    NeedMore(usize),
    /// There will be no second ClientHello.
    Never,
}

/// Judges the record at the front of `stream`, which follows a first hello.
pub fn sequel(stream: &[u8], early_data: bool) -> Sequel {
    let Some(&kind) = stream.first() else { return Sequel::NeedMore(RECORD_HEADER + 1) };
    match kind {
        HANDSHAKE if !may_start(stream) => Sequel::Never,
        HANDSHAKE if stream.len() <= RECORD_HEADER => Sequel::NeedMore(RECORD_HEADER + 1),
        HANDSHAKE => Sequel::Hello,
        CHANGE_CIPHER_SPEC => match u16_at(stream, 3) {
            None => Sequel::NeedMore(RECORD_HEADER),
            Some(1) => Sequel::Skip(RECORD_HEADER + 1),
            Some(_) => Sequel::Never,
        },
        APPLICATION_DATA if early_data => match u16_at(stream, 3) {
            None => Sequel::NeedMore(RECORD_HEADER),
            Some(len) => Sequel::Skip(RECORD_HEADER + usize::from(len)),
        },
        _ => Sequel::Never,
    }
}

/// A ClientHello, borrowed from the bytes that held it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// `legacy_version`: 0x0303 in every TLS 1.3 hello.
    pub legacy_version: u16,
    /// Cipher suites, two bytes each.
    ciphers: &'a [u8],
    /// The extension list, known to be well-formed.
    extensions: &'a [u8],
    /// The first content of each extension that is looked into, by its place in [`extension::LOOKED_INTO`].
    known: [Option<&'a [u8]>; extension::LOOKED_INTO.len()],
}

impl<'a> ClientHello<'a> {
    /// Parses the body of a ClientHello message (without its handshake header). Bytes after the extension list are
    /// ignored; extensions are checked for their lengths, not for their content.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        Self::parse_as(body, false)
    }

    /// The same for DTLS, whose hello has a cookie after the session ID (RFC 6347 section 4.2.1).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_dtls(body: &'a [u8]) -> Result<Self, Reason> {
        Self::parse_as(body, true)
    }

    fn parse_as(body: &'a [u8], dtls: bool) -> Result<Self, Reason> {
        let legacy_version = u16_at(body, 0).ok_or(Reason::TooShort)?;
        let mut rest = body.get(34..).ok_or(Reason::TooShort)?; // after the random
        take_vector(&mut rest, 1).ok_or(Reason::TooShort)?; // session id
        if dtls {
            take_vector(&mut rest, 1).ok_or(Reason::TooShort)?; // cookie
        }
        let ciphers = take_vector(&mut rest, 2).ok_or(Reason::TooShort)?;
        take_vector(&mut rest, 1).ok_or(Reason::TooShort)?; // compression methods
        if ciphers.len() % 2 != 0 {
            return Err(Reason::CipherSuites);
        }
        // TLS 1.2 and older allow a hello without the list.
        let extensions = match rest {
            [] => rest,
            _ => take_vector(&mut rest, 2).ok_or(Reason::Extensions)?,
        };
        let (mut walk, mut known) = (Extensions(extensions), [None; extension::LOOKED_INTO.len()]);
        for (kind, content) in walk.by_ref() {
            if let Some(known) = extension::place(kind).and_then(|place| known.get_mut(place)) {
                known.get_or_insert(content);
            }
        }
        match walk.0 {
            [] => Ok(Self { legacy_version, ciphers, extensions, known }),
            _ => Err(Reason::Extensions),
        }
    }

    /// The cipher suites in wire order, GREASE included.
    pub fn ciphers(&self) -> impl Iterator<Item = u16> + use<'a> {
        u16s(self.ciphers)
    }

    /// The extensions in wire order, GREASE included: type and content.
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions(self.extensions)
    }

    /// The content of the first extension of this type.
    pub fn extension(&self, kind: u16) -> Option<&'a [u8]> {
        match extension::place(kind).and_then(|place| self.known.get(place)) {
            Some(known) => *known,
            None => self.extensions().find(|(found, _)| *found == kind).map(|(_, content)| content),
        }
    }

    /// The first host name of `server_name`. As sent: neither its characters nor its case are checked.
    pub fn server_name(&self) -> Option<&'a [u8]> {
        let mut list = self.extension(extension::SERVER_NAME)?;
        let mut names = take_vector(&mut list, 2)?;
        while let Some(kind) = u8_at(names, 0) {
            names = &names[1..];
            let name = take_vector(&mut names, 2)?;
            if kind == 0 {
                return Some(name);
            }
        }
        None
    }

    /// The first protocol name of ALPN; it may be empty.
    pub fn alpn(&self) -> Option<&'a [u8]> {
        let mut list = self.extension(extension::ALPN)?;
        let mut names = take_vector(&mut list, 2)?;
        take_vector(&mut names, 1)
    }

    /// The protocol names of ALPN in wire order, at most 100 of them; ends early at one that is not all there.
    pub fn alpns(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // A name can be a single byte in the hello, and dozens as a string of its own.
        const MAX: usize = 100;
        let mut names = self.list(extension::ALPN, 2);
        std::iter::from_fn(move || take_vector(&mut names, 1)).take(MAX)
    }

    /// The values of `supported_versions`; none if the extension is missing.
    pub fn supported_versions(&self) -> impl Iterator<Item = u16> + use<'a> {
        u16s(self.list(extension::SUPPORTED_VERSIONS, 1))
    }

    /// The values of `signature_algorithms` in wire order; none if the extension is missing.
    pub fn signature_algorithms(&self) -> impl Iterator<Item = u16> + use<'a> {
        u16s(self.list(extension::SIGNATURE_ALGORITHMS, 2))
    }

    /// The values of `supported_groups` in wire order; none if the extension is missing.
    pub fn supported_groups(&self) -> impl Iterator<Item = u16> + use<'a> {
        u16s(self.list(extension::SUPPORTED_GROUPS, 2))
    }

    /// The values of `ec_point_formats`; empty if the extension is missing.
    pub fn point_formats(&self) -> &'a [u8] {
        self.list(extension::EC_POINT_FORMATS, 1)
    }

    /// Whether the hello offers Encrypted Client Hello (RFC 9849), or pretends to: a GREASE offer looks the same.
    pub fn offers_ech(&self) -> bool {
        self.extension(extension::ENCRYPTED_CLIENT_HELLO).is_some()
    }

    /// The named groups for which the hello holds a key share, in wire order, GREASE included.
    pub fn key_shares(&self) -> impl Iterator<Item = u16> + use<'a> {
        let mut shares = self.list(extension::KEY_SHARE, 2);
        std::iter::from_fn(move || {
            let group = u16_at(shares, 0)?;
            let mut rest = &shares[2..];
            take_vector(&mut rest, 2)?;
            shares = rest;
            Some(group)
        })
    }

    /// Whether a key share is of a post-quantum group: ML-KEM alone or combined with a curve, or its draft, Kyber.
    pub fn has_post_quantum_share(&self) -> bool {
        self.key_shares().any(
            |group| matches!(group, 0x0200..=0x0202 | 0x11eb..=0x11ed | 0x6399 | 0x639a | 0xfe30 | 0xfe31 | 0xfe32),
        )
    }

    /// Whether the client sends data before the server has answered.
    pub fn offers_early_data(&self) -> bool {
        self.extension(extension::EARLY_DATA).is_some()
    }

    /// The content of a list that is all of an extension; empty if it is missing or its length is wrong.
    fn list(&self, kind: u16, width: usize) -> &'a [u8] {
        self.extension(kind).and_then(|mut content| take_vector(&mut content, width)).unwrap_or_default()
    }
}

/// Extension types (IANA "TLS ExtensionType Values") that are looked into.
pub mod extension {
    #![expect(missing_docs, reason = "the names are the registry's")]
    pub const SERVER_NAME: u16 = 0x0000;
    pub const SUPPORTED_GROUPS: u16 = 0x000a;
    pub const EC_POINT_FORMATS: u16 = 0x000b;
    pub const SIGNATURE_ALGORITHMS: u16 = 0x000d;
    pub const ALPN: u16 = 0x0010;
    pub const EARLY_DATA: u16 = 0x002a;
    pub const SUPPORTED_VERSIONS: u16 = 0x002b;
    pub const KEY_SHARE: u16 = 0x0033;
    pub const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

    /// All of them.
    pub(super) const LOOKED_INTO: [u16; 9] = [
        SERVER_NAME,
        SUPPORTED_GROUPS,
        EC_POINT_FORMATS,
        SIGNATURE_ALGORITHMS,
        ALPN,
        EARLY_DATA,
        SUPPORTED_VERSIONS,
        KEY_SHARE,
        ENCRYPTED_CLIENT_HELLO,
    ];

    /// Where one stands in the list.
    #[inline]
    pub(super) fn place(kind: u16) -> Option<usize> {
        Some(match kind {
            SERVER_NAME => 0,
            SUPPORTED_GROUPS => 1,
            EC_POINT_FORMATS => 2,
            SIGNATURE_ALGORITHMS => 3,
            ALPN => 4,
            EARLY_DATA => 5,
            SUPPORTED_VERSIONS => 6,
            KEY_SHARE => 7,
            ENCRYPTED_CLIENT_HELLO => 8,
            _ => return None,
        })
    }
}

/// Iterates over an extension list; ends early at the first extension that is not all there.
#[derive(Debug, Clone)]
pub struct Extensions<'a>(&'a [u8]);

impl<'a> Iterator for Extensions<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = u16_at(self.0, 0)?;
        let mut rest = &self.0[2..];
        let content = take_vector(&mut rest, 2)?;
        self.0 = rest;
        Some((kind, content))
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
