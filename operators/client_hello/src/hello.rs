//! A hello as it leaves the decoder.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

use super::flow::{Flow, FlowKey};
use super::ip::IpMeta;
use super::tcp::TcpMeta;
use super::tls::ClientHello;
use crate::fingerprint::{self, Transport, ja3, ja4::Ja4};

/// A ClientHello with its fingerprints and what the network told about its sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Time of the packet that completed the hello, nanoseconds since the epoch.
    pub time: i64,
    /// The client; IPv4-mapped IPv6 as IPv4.
    pub src: IpAddr,
    /// Its port.
    pub src_port: u16,
    /// The server; IPv4-mapped IPv6 as IPv4.
    pub dst: IpAddr,
    /// Its port.
    pub dst_port: u16,
    /// Names the connection: 16 hex digits made of addresses, ports and the time of its first packet. The same in every
    /// run over the same packets.
    pub conn_id: String,
    /// What carried the hello.
    pub transport: Transport,
    /// 0 for the first hello of the connection that was captured, 1 for what came after it: the answer to a
    /// HelloRetryRequest or HelloVerifyRequest, or over QUIC another hello after a Retry.
    pub index: u8,
    /// IP header of the SYN, because its fields are the same for every connection of a system; of the packet that
    /// completed the hello if the SYN was not captured (`tcp` is `None`).
    pub ip: IpMeta,
    /// TCP fields of the SYN; `None` if it was not captured.
    pub tcp: Option<TcpMeta>,
    /// Milliseconds from the first SYN to `time`; `None` if no SYN was captured.
    pub syn_to_clienthello_ms: Option<f64>,
    /// The newest version offered, as [`fingerprint::ja4::version_name`] writes it.
    pub tls_version: Option<&'static str>,
    /// The server name as sent, bytes that are no UTF-8 replaced.
    pub sni: Option<String>,
    /// The first protocol of ALPN, bytes that are no UTF-8 replaced.
    pub alpn: Option<String>,
    /// The protocols of ALPN in wire order, at most 100.
    pub alpns: Vec<String>,
    /// Encrypted Client Hello is offered, or a GREASE offer of it.
    pub ech: bool,
    /// A key share is of a post-quantum group.
    pub post_quantum: bool,
    /// Data is sent before the server has answered.
    pub early_data: bool,
    /// JA4.
    pub ja4: String,
    /// What JA4 is made of; gives its other forms.
    pub values: Ja4,
    /// JA3, unhashed.
    pub ja3: String,
    /// MD5 of `ja3`.
    pub ja3_hash: String,
    /// The client sent two versions of these bytes, or of its hello, and the packets do not tell which one the server took.
    pub ambiguous: bool,
    /// [`Frame::origin`](super::Frame::origin) of the packet that completed the hello.
    pub origin: u64,
    /// [`Frame::interface`](super::Frame::interface) of that packet.
    pub interface: u32,
}

/// The packet that completed the hello.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub ip: IpMeta,
    /// Of its frame.
    pub origin: u64,
    /// Grows with each packet.
    pub order: u64,
    /// The same for packets that were sent alike: with one time to live, acknowledgement number and length of options.
    pub group: u64,
    /// Of its frame.
    pub interface: u32,
}

/// Puts together what is known about a hello of this flow.
pub(crate) fn describe(
    flow: &Flow,
    key: &FlowKey,
    arrival: &Arrival,
    transport: Transport,
    index: u8,
    hello: &ClientHello<'_>,
) -> Hello {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ja3 = ja3::ja3(hello);
    let values = Ja4::new(hello, transport);
    Hello {
        time: arrival.time,
        src: Ipv6Addr::from(key.src).to_canonical(),
        src_port: key.src_port,
        dst: Ipv6Addr::from(key.dst).to_canonical(),
        dst_port: key.dst_port,
        conn_id: connection_id(key, flow.first),
        transport,
        index,
        ip: flow.syn.map_or(arrival.ip, |syn| syn.ip),
        tcp: flow.syn.map(|syn| syn.options.meta()),
        syn_to_clienthello_ms: flow.syn.map(|syn| arrival.time.saturating_sub(syn.time) as f64 / 1e6),
        tls_version: fingerprint::ja4::version_name(fingerprint::ja4::offered_version(hello, transport)),
        sni: hello.server_name().map(text),
        alpn: hello.alpn().map(text),
        alpns: hello.alpns().map(text).collect(),
        ech: hello.offers_ech(),
        post_quantum: hello.has_post_quantum_share(),
        early_data: hello.offers_early_data(),
        ja4: values.hashed(),
        values,
        ja3_hash: ja3::hash(&ja3),
        ja3,
        ambiguous: false,
        origin: arrival.origin,
        interface: arrival.interface,
    }
}

/// 64 bits of a SHA-256 in hex: a client cannot choose addresses, ports and time so that two connections share it.
fn connection_id(key: &FlowKey, first: i64) -> String {
    let mut sha = Sha256::new();
    sha.update(key.src.to_be_bytes());
    sha.update(key.src_port.to_be_bytes());
    sha.update(key.dst.to_be_bytes());
    sha.update(key.dst_port.to_be_bytes());
    sha.update(first.to_be_bytes());
    let digest = sha.finalize();
    let mut id = String::with_capacity(16);
    fingerprint::push_hex(&mut id, &digest[..8]);
    id
}
