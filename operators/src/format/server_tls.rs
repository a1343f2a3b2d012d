//! What a server says of the TLS connection of a request, beside what the sensor has seen of it on the wire.
//!
//! `correlate` compares the two: they differ where something between the sensor and the server has ended the client's TLS.

use super::path::Path;
use super::schema::{Column, Kind};

/// The version, as the server writes it: `TLSv1.3`, `1.3`, `772`.
pub const VERSION: &str = "server_tls_version";
/// The cipher suite, as the server writes it.
pub const CIPHER: &str = "server_tls_cipher";
/// The server name of the hello that the server has read.
pub const SNI: &str = "server_tls_sni";
/// The JA4 that the server has computed.
pub const JA4: &str = "server_ja4";
/// The JA3 that the server has computed: its MD5, or the text.
pub const JA3: &str = "server_ja3";

/// The columns, in their order; each text.
pub(super) const COLUMNS: [&str; 5] = [VERSION, CIPHER, SNI, JA4, JA3];

/// What servers write for a connection without TLS, or for what they do not know of it.
const ABSENT: [&str; 6] = ["", "-", "none", "NONE", "(NONE)", "0"];

/// The columns, each under the key of its own name.
pub(super) fn columns() -> Vec<Column> {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        key: Path::key(*name),
        kind: Kind::Text,
        absent: ABSENT.map(str::to_owned).to_vec(),
        required: false,
    };
    COLUMNS.iter().map(column).collect()
}
