//! A connection: what is known of it, and what is kept until its hello has left.

use std::hash::{Hash, Hasher};

use super::assembly::Assembly;
use super::checksum::Checksum;
use super::contest::Contest;
use super::dtls;
use super::ip::IpMeta;
use super::packet::Packet;
use super::quic;
use super::server::Server;
use super::tcp::SynOptions;
use super::waiting::{Verdict, Waiting};

/// One direction of a connection, client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    pub src: u128,
    pub dst: u128,
    pub src_port: u16,
    pub dst_port: u16,
    /// QUIC or DTLS; else TCP.
    pub udp: bool,
}

impl FlowKey {
    /// The direction of a packet.
    pub(crate) fn of(packet: &Packet<'_>, udp: bool) -> Self {
        let Packet { src, src_port, dst, dst_port, .. } = *packet;
        Self { src, dst, src_port, dst_port, udp }
    }

    /// The other direction.
    pub(crate) fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..*self }
    }

    /// The same for both directions.
    pub(crate) fn undirected(&self) -> Self {
        if (self.src, self.src_port) <= (self.dst, self.dst_port) { *self } else { self.reversed() }
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.src);
        state.write_u128(self.dst);
        // One step for what fits into a word.
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        state.write_u64(u64::from(self.udp) << 32 | ports);
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No SYN was captured and no segment looked like the start of a hello yet.
    Unanchored,
    /// Waiting for the first hello.
    First,
    /// The first hello is out; a HelloRetryRequest may bring a second.
    Second,
    /// Nothing more is expected. Kept so that later data is known to belong to an old connection.
    Done,
}

/// A captured SYN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syn {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub ip: IpMeta,
    pub options: SynOptions,
    pub checksum: Checksum,
}

/// A connection. Without buffered data it takes about 300 bytes, over UDP half as much again.
#[derive(Debug)]
pub(crate) struct Flow {
    pub stage: Stage,
    /// The first hello offered early data.
    pub early_data: bool,
    /// Time of the connection's first packet, nanoseconds since the epoch.
    pub first: i64,
    /// Sequence number of the client's first byte; of the first byte seen while the start is unknown.
    pub start: u32,
    /// Sequence number of the first byte not dealt with.
    pub base: u32,
    /// Bytes skipped since the first hello.
    pub skipped: usize,
    pub syn: Option<Syn>,
    /// Another SYN, and the number of the first byte after it, that came while the hello was not complete.
    pub rival: Option<Box<(u32, Syn)>>,
    pub assembly: Option<Box<Assembly>>,
    pub datagrams: Option<Datagrams>,
    /// The client has sent more than a SYN.
    pub confirmed: bool,
    pub server: Server,
    /// The first hello, if it has not been handed on.
    pub waiting: Option<Box<Waiting>>,
    /// Bytes of which it is not sure whether they are the client's.
    pub contest: Option<Box<Contest>>,
    pub verdict: Option<Box<Verdict>>,
    /// The client has sent two versions of its first bytes: its hello is ambiguous.
    pub disputed: bool,
    /// It began anew on the ports of a connection whose server was seen, and without that server.
    pub is_unproven: bool,
    /// Another SYN came for it.
    pub is_rivalled: bool,
    /// It was given up while its start was unknown: what came was from behind a hello.
    pub is_past: bool,
    /// There may be a connection in the other direction too: who is the client is not known yet.
    pub has_twin: bool,
}

/// What is known of a connection over UDP.
#[derive(Debug)]
pub(crate) enum Datagrams {
    Quic(Box<quic::Connection>),
    Dtls(Box<dtls::Connection>),
}

impl Datagrams {
    fn held(&self) -> usize {
        match self {
            Self::Quic(connection) => connection.held(),
            Self::Dtls(connection) => connection.held(),
        }
    }
}

impl Flow {
    /// A connection first seen at `first` whose client's first byte has (or may have) this sequence number.
    pub(crate) fn new(first: i64, start: u32, stage: Stage) -> Self {
        Self {
            stage,
            early_data: false,
            first,
            start,
            base: start,
            skipped: 0,
            syn: None,
            rival: None,
            assembly: None,
            datagrams: None,
            confirmed: false,
            server: Server::default(),
            waiting: None,
            contest: None,
            verdict: None,
            disputed: false,
            is_unproven: false,
            is_rivalled: false,
            is_past: false,
            has_twin: false,
        }
    }

    /// Whether it has buffered data.
    pub(crate) fn holds(&self) -> bool {
        self.assembly.is_some() || self.datagrams.is_some() || self.waiting.is_some() || self.contest.is_some()
    }

    /// Memory that its buffered data takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        // Most have none.
        if !self.holds() {
            return 0;
        }
        self.assembly.as_ref().map_or(0, |assembly| size_of::<Assembly>() + assembly.held())
            + self.datagrams.as_ref().map_or(0, |datagrams| datagrams.held())
            + self.waiting.as_ref().map_or(0, |waiting| waiting.held())
            + self.contest.as_ref().map_or(0, |contest| contest.held())
    }

    /// Its place in the order of eviction.
    pub(crate) fn class(&self) -> Class {
        match self.stage {
            Stage::Second | Stage::Done => Class::Expendable,
            Stage::First if self.syn.is_some() && !self.confirmed => Class::OnlySyn,
            Stage::Unanchored | Stage::First => Class::Unfinished,
        }
    }
}

/// Connections are evicted by what would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The client has sent nothing but a SYN, as in a flood.
    OnlySyn = 0,
    /// Its main hello is out or will never come.
    Expendable = 1,
    /// Its hello may still come.
    Unfinished = 2,
}
