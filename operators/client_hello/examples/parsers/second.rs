//! A ClientHello by a second parser, tls-parser (rusticata), and what of it has to be as this crate's parser says.
//!
//! Where both read a hello, all fields agree. They differ here, and nowhere else:
//!
//! | what | tls-parser | this crate | RFC 8446 |
//! |---|---|---|---|
//! | session ID of more than 32 bytes | refuses | reads on | not allowed (4.1.2) |
//! | content of an extension that it knows too short, of odd length, or longer than allowed | stops, and has none of the extensions behind it | has the extension, with what there is of its list | not allowed (4.2) |
//! | `supported_versions` that its list does not fill | reads all of it; of two bytes the choice of a server | reads the list | not allowed (4.2.1) |
//!
//! A server may refuse each of these with `decode_error` (6.2). A fingerprint is another matter: JA4 counts an extension
//! whatever it contains, and clients that send such hellos are worth knowing. Unknown extensions, GREASE, empty lists, bytes
//! behind the extensions, hellos without any and those of DTLS are the same in both.

use client_hello::tls::{ClientHello, extension};
use tls_parser::nom::combinator::complete;
use tls_parser::nom::multi::{length_data, many0};
use tls_parser::nom::number::streaming::be_u16;
use tls_parser::nom::sequence::terminated;
use tls_parser::{DTLSMessage, DTLSMessageHandshakeBody, IResult, TlsCipherSuiteID, TlsExtension, TlsVersion};

/// What both find in a hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    pub version: u16,
    pub ciphers: Vec<u16>,
    pub extensions: Vec<u16>,
    pub server_name: Option<Vec<u8>>,
    pub alpn: Option<Vec<u8>>,
    /// At most 100.
    pub alpns: Vec<Vec<u8>>,
    pub versions: Vec<u16>,
    pub algorithms: Vec<u16>,
    pub groups: Vec<u16>,
    pub point_formats: Vec<u8>,
    pub key_shares: Vec<u16>,
    pub early_data: bool,
    pub ech: bool,
}

impl Fields {
    /// As this crate reads them.
    pub fn of(hello: &ClientHello<'_>) -> Self {
        Self {
            version: hello.legacy_version,
            ciphers: hello.ciphers().collect(),
            extensions: hello.extensions().map(|(kind, _)| kind).collect(),
            server_name: hello.server_name().map(<[u8]>::to_vec),
            alpn: hello.alpn().map(<[u8]>::to_vec),
            alpns: hello.alpns().map(<[u8]>::to_vec).collect(),
            versions: hello.supported_versions().collect(),
            algorithms: hello.signature_algorithms().collect(),
            groups: hello.supported_groups().collect(),
            point_formats: hello.point_formats().to_vec(),
            key_shares: hello.key_shares().collect(),
            early_data: hello.offers_early_data(),
            ech: hello.offers_ech(),
        }
    }
}

/// Why tls-parser has no hello, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What stands before the extensions.
    Head,
    /// The length of the extension list, or of the last extension in it.
    List,
    /// The content of an extension of this type.
    Content(u16),
}

/// A hello of TLS as tls-parser leaves it: no field is looked for yet.
pub fn parsed(body: &[u8]) -> Result<(TlsVersion, Vec<TlsCipherSuiteID>, Vec<TlsExtension<'_>>), Refusal> {
    let (rest, hello) = tls_parser::parse_tls_handshake_client_hello(body).map_err(|_| Refusal::Head)?;
    Ok((hello.version, hello.ciphers, extensions(hello.ext, rest)?))
}

/// The fields by tls-parser, from the body of a ClientHello message.
pub fn fields(body: &[u8], dtls: bool) -> Result<Fields, Refusal> {
    if !dtls {
        let (version, ciphers, extensions) = parsed(body)?;
        return Ok(with(version, &ciphers, &extensions));
    }
    // Its parser of DTLS takes the message with its header, which says that this is all of it.
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    let message = [&[1, a, b, c, 0, 0, 0, 0, 0, a, b, c], body].concat();
    let Ok((_, DTLSMessage::Handshake(message))) = tls_parser::parse_dtls_message_handshake(&message) else {
        return Err(Refusal::Head);
    };
    let DTLSMessageHandshakeBody::ClientHello(hello) = message.body else { return Err(Refusal::Head) };
    // It does not give what it has left over.
    let head = 2 + 32 + 1 + hello.session_id.map_or(0, <[u8]>::len) + 1 + hello.cookie.len();
    let head = head + 2 + 2 * hello.ciphers.len() + 1 + hello.comp.len();
    let rest = if hello.ext.is_none() { body.get(head..).unwrap_or_default() } else { &[] };
    Ok(with(hello.version, &hello.ciphers, &extensions(hello.ext, rest)?))
}

/// `rest` is what stands behind the list, or behind the compression methods if there is none.
fn extensions<'a>(list: Option<&'a [u8]>, rest: &[u8]) -> Result<Vec<TlsExtension<'a>>, Refusal> {
    if list.is_none() && !rest.is_empty() {
        return Err(Refusal::List);
    }
    let list = list.unwrap_or_default();
    let (rest, found) = tls_parser::parse_tls_client_hello_extensions(list).map_err(|_| Refusal::List)?;
    match tls_parser::parse_tls_extension_unknown(rest) {
        Ok((_, TlsExtension::Unknown(kind, _))) => Err(Refusal::Content(kind.0)),
        _ if rest.is_empty() => Ok(found),
        _ => Err(Refusal::List),
    }
}

fn with(version: TlsVersion, ciphers: &[TlsCipherSuiteID], extensions: &[TlsExtension<'_>]) -> Fields {
    let mut fields = Fields {
        version: version.0,
        ciphers: ciphers.iter().map(|cipher| cipher.0).collect(),
        extensions: extensions.iter().map(kind_of).collect(),
        ..Fields::default()
    };
    // The first one of a type counts: the last one that is looked at.
    for found in extensions.iter().rev() {
        match found {
            TlsExtension::SNI(names) => {
                fields.server_name = names.iter().find(|(kind, _)| kind.0 == 0).map(|(_, name)| name.to_vec());
            }
            TlsExtension::ALPN(names) => {
                fields.alpn = names.first().map(|name| name.to_vec());
                fields.alpns = names.iter().take(100).map(|name| name.to_vec()).collect();
            }
            TlsExtension::SupportedVersions(list) => fields.versions = list.iter().map(|version| version.0).collect(),
            TlsExtension::SignatureAlgorithms(list) => fields.algorithms.clone_from(list),
            TlsExtension::EllipticCurves(list) => fields.groups = list.iter().map(|group| group.0).collect(),
            TlsExtension::EcPointFormats(list) => fields.point_formats = list.to_vec(),
            TlsExtension::KeyShare(content) => {
                fields.key_shares = key_shares(content).map_or(Vec::new(), |(_, list)| list)
            }
            TlsExtension::EarlyData(_) => fields.early_data = true,
            TlsExtension::Unknown(kind, _) if kind.0 == extension::ENCRYPTED_CLIENT_HELLO => fields.ech = true,
            _ => {}
        }
    }
    fields
}

fn kind_of(extension: &TlsExtension<'_>) -> u16 {
    match extension {
        // Its own conversion forgets which of them it was.
        TlsExtension::Grease(kind, _) => *kind,
        other => tls_parser::TlsExtensionType::from(other).0,
    }
}

/// tls-parser leaves the content as it is.
fn key_shares(content: &[u8]) -> IResult<&[u8], Vec<u16>> {
    let (rest, list) = complete(length_data(be_u16))(content)?;
    let share = terminated(be_u16, length_data(be_u16));
    Ok((rest, many0(complete(share))(list)?.1))
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both read the same fields.
    Equal,
    /// Neither reads a hello.
    Neither,
    /// tls-parser refuses what this crate reads, and the specification is on its side.
    OnlyOurs(Refusal),
}

/// Compares what both parsers make of the body of a ClientHello message.
///
/// # Errors
/// If they differ in another way than this module's table says.
pub fn compare(body: &[u8], dtls: bool) -> Result<Verdict, String> {
    let ours = if dtls { ClientHello::parse_dtls(body) } else { ClientHello::parse(body) };
    match (ours, fields(body, dtls)) {
        (Err(_), Err(_)) => Ok(Verdict::Neither),
        (Err(reason), Ok(_)) => Err(format!("only tls-parser reads it: {reason}")),
        (Ok(hello), Err(refusal)) => {
            let malformed =
                |kind| hello.extensions().any(|(found, content)| found == kind && !is_well_formed(kind, content));
            let allowed = match refusal {
                Refusal::Head => body.get(SESSION_ID).is_some_and(|len| *len > MAX_SESSION_ID),
                Refusal::List => false,
                Refusal::Content(kind) => malformed(kind),
            };
            if allowed { Ok(Verdict::OnlyOurs(refusal)) } else { Err(format!("tls-parser refuses it: {refusal:?}")) }
        }
        (Ok(hello), Ok(theirs)) => {
            let mut ours = Fields::of(&hello);
            let versions = hello.extension(extension::SUPPORTED_VERSIONS).unwrap_or(&[2, 3, 4]);
            if !is_well_formed(extension::SUPPORTED_VERSIONS, versions) {
                ours.versions.clone_from(&theirs.versions);
            }
            if ours == theirs { Ok(Verdict::Equal) } else { Err(format!("{ours:?} but {theirs:?}")) }
        }
    }
}

/// Where the length of the session ID stands, behind version and random.
const SESSION_ID: usize = 34;
const MAX_SESSION_ID: u8 = 32;

/// Whether the content of an extension is as its specification says, as far as lengths go. True for those that tls-parser does
/// not look into.
pub fn is_well_formed(kind: u16, content: &[u8]) -> bool {
    let numbers = |list: &[u8]| !list.is_empty() && list.len().is_multiple_of(2);
    match kind {
        // RFC 6066: server_name, max_fragment_length. RFC 7301: ALPN.
        0 => whole(content, 2).and_then(|list| elements(list, 1, 2, 1)).is_some_and(|names| names > 0),
        1 => content.len() == 1,
        16 => whole(content, 2).and_then(|list| elements(list, 0, 1, 1)).is_some_and(|names| names > 0),
        // RFC 8446: supported_groups, signature_algorithms, supported_versions, psk_key_exchange_modes, key_share.
        10 | 13 => whole(content, 2).is_some_and(numbers),
        43 => whole(content, 1).is_some_and(numbers),
        45 => whole(content, 1).is_some_and(|list| !list.is_empty()),
        51 => whole(content, 2).and_then(|list| elements(list, 2, 2, 1)).is_some(),
        // RFC 8422: ec_point_formats. RFC 5746: renegotiation_info.
        11 => whole(content, 1).is_some_and(|list| !list.is_empty()),
        0xff01 => whole(content, 1).is_some(),
        // RFC 6520: heartbeat. RFC 8449: record_size_limit.
        15 => content.len() == 1,
        28 => content.len() == 2,
        // RFC 7366, RFC 7627, RFC 8446 (early_data, post_handshake_auth), next_protocol_negotiation: there is none.
        22 | 23 | 42 | 49 | 13172 => content.is_empty(),
        // RFC 8446: oid_filters, of which only the outer length is checked.
        48 => whole(content, 2).is_some(),
        // draft-ietf-tls-esni-02: two numbers and three vectors.
        0xffce => content.get(4..).and_then(|rest| elements(rest, 0, 2, 0)) == Some(3),
        _ => true,
    }
}

/// The vector, with a length of so many bytes, that is all of `content`.
fn whole(content: &[u8], width: usize) -> Option<&[u8]> {
    let (len, list) = content.split_at_checked(width)?;
    let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    (list.len() == len).then_some(list)
}

/// How many elements a list has that are so many bytes and then a vector of at least `least` bytes; `None` if it is not made of
/// such.
fn elements(mut list: &[u8], before: usize, width: usize, least: usize) -> Option<usize> {
    let mut count = 0;
    while !list.is_empty() {
        let (len, rest) = list.get(before..)?.split_at_checked(width)?;
        let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        list = rest.get(len..).filter(|_| len >= least)?;
        count += 1;
    }
    Some(count)
}
