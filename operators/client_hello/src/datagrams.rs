//! UDP: the hellos of QUIC and DTLS, and what the server's datagrams show.

use super::contest::Rank;
use super::dtls;
use super::extractor::HelloExtractor;
use super::fingerprint::Transport;
use super::flow::{Datagrams, Flow, FlowKey, Stage};
use super::hello::{Arrival, Hello, describe};
use super::packet::{self, Datagram, Packet};
use super::quic;
use super::table::Index;
use super::trust;
use super::waiting::Waiting;

impl HelloExtractor {
    /// A datagram with an Initial packet or a part of a DTLS hello, or what a server may answer to it.
    pub(crate) fn datagram(&mut self, ts: i64, packet: &Packet<'_>, datagram: &Datagram<'_>) {
        let key = FlowKey::of(packet, true);
        let payload = datagram.payload;
        let mut opened = false;
        let found = match self.flows.find_either(&key) {
            Some((at, false)) => return self.replied(at),
            Some((at, true)) => self.live(at, ts),
            None => None,
        };
        if !begins(payload) {
            return self.skipped(packet::without_hello(packet.dst_port, payload), false);
        }
        let at = match found {
            Some(at) => at,
            None => {
                let datagrams = if dtls::is_client_hello(payload) {
                    Datagrams::Dtls(Box::default())
                } else {
                    let Some(connection) = quic::Connection::of(payload, &mut self.joined) else {
                        self.counters.quic_initials += 1;
                        self.counters.quic_undecryptable += 1;
                        return;
                    };
                    opened = true;
                    Datagrams::Quic(Box::new(connection))
                };
                let mut flow = Flow::new(ts, 0, Stage::First);
                flow.datagrams = Some(datagrams);
                self.buffered += flow.held();
                self.insert(key, flow, ts)
            }
        };
        self.hellos(at, &key, ts, packet, datagram, opened);
        self.flows.touch(at, ts);
        self.keep_to_budget();
    }

    /// Looks for hellos in a client's datagram.
    fn hellos(
        &mut self,
        at: Index,
        key: &FlowKey,
        ts: i64,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
        opened: bool,
    ) {
        let arrival = self.arrival(ts, packet);
        let rank = trust::of_datagram(packet, datagram);
        let Self { limits, counters, joined, flows, .. } = self;
        let Some(flow) = flows.get_mut(at) else { return };
        let held = flow.held();
        let Some(mut datagrams) = flow.datagrams.take() else { return };
        let mut found: Vec<Found> = Vec::new();
        let is_over = match &mut datagrams {
            Datagrams::Quic(connection) => {
                let from = quic::From { datagram: datagram.payload, opened, rank, arrival };
                connection.datagram(&from, limits, counters, joined, &mut |hello, arrival, message| {
                    let hello = describe(flow, key, arrival, Transport::Quic, message.index, hello);
                    found.push(Found { hello, arrival: *arrival, rank, disputed: message.disputed });
                });
                connection.is_over()
            }
            Datagrams::Dtls(connection) => {
                let from = dtls::From { datagram: datagram.payload, rank, arrival };
                connection.datagram(&from, limits, counters, &mut |hello, arrival, message| {
                    let hello = describe(flow, key, arrival, Transport::Dtls, message.index, hello);
                    found.push(Found { hello, arrival: *arrival, rank, disputed: message.disputed });
                });
                connection.is_over()
            }
        };
        flow.stage = if is_over { Stage::Second } else { Stage::First };
        flow.datagrams = Some(datagrams);
        self.buffered = self.buffered - held + flow.held();
        for found in found {
            self.found(at, found);
        }
    }

    /// A hello is complete: the first one waits for the server's answer, unless another one waits already.
    fn found(&mut self, at: Index, found: Found) {
        let Found { mut hello, arrival, rank, disputed } = found;
        let Self { flows, queue, ready, limits, buffered, .. } = self;
        let Some(flow) = flows.get_mut(at) else { return };
        let held = flow.held();
        // A second hello is its client's as much as the first.
        flow.disputed |= disputed;
        hello.ambiguous = flow.disputed;
        if hello.index > 0 {
            // Whoever sends both at once may send others: neither leaves before the first may.
            match &mut flow.waiting {
                Some(waiting) => match &mut waiting.sequel {
                    Some(sequel) => sequel.ambiguous = true,
                    None => waiting.sequel = Some(Box::new(hello)),
                },
                None => ready.push(hello),
            }
        } else if let Some(waiting) = &mut flow.waiting {
            // Two stories, and no answer yet.
            let is_better = rank < waiting.rank;
            if is_better {
                (waiting.hello, waiting.arrival, waiting.rank) = (Some(Box::new(hello)), arrival, rank);
            }
            flow.disputed = true;
            waiting.doubt();
        } else {
            let number = queue.push(arrival.time, at);
            let bytes = Vec::new();
            let hello = Some(Box::new(hello));
            flow.waiting =
                Some(Box::new(Waiting { hello, sequel: None, arrival, rank, from: 0, bytes, is_whole: false, number }));
        }
        if limits.hold.is_zero() {
            let_go(flow, ready);
        }
        *buffered = *buffered - held + flow.held();
    }

    /// The server has answered: it has taken what it was sent.
    fn replied(&mut self, at: Index) {
        // An answer to a hello of which others were on their way may be one to these.
        let Self { flows, ready, buffered, .. } = self;
        let Some(flow) = flows.get_mut(at) else { return };
        let held = flow.held();
        let (is_sure, is_only) = match &mut flow.datagrams {
            Some(Datagrams::Quic(connection)) => connection.answered(),
            Some(Datagrams::Dtls(connection)) => connection.answered(),
            None => (true, true),
        };
        if let Some(waiting) = flow.waiting.as_mut().filter(|_| !is_only) {
            flow.disputed = true;
            waiting.doubt();
        }
        if is_sure {
            let_go(flow, ready);
        }
        *buffered = *buffered - held + flow.held();
    }
}

/// Hands on what waits.
fn let_go(flow: &mut Flow, ready: &mut Vec<Hello>) {
    let Some(waiting) = flow.waiting.take() else { return };
    ready.extend([waiting.hello, waiting.sequel].into_iter().flatten().map(|hello| *hello));
}

/// A hello that a datagram completed.
struct Found {
    hello: Hello,
    arrival: Arrival,
    rank: Rank,
    disputed: bool,
}

/// Whether a datagram may hold a hello.
pub(crate) fn begins(payload: &[u8]) -> bool {
    quic::is_initial(payload) || dtls::is_client_hello(payload)
}

/// Whether a datagram may hold a hello, or a server's answer to one.
pub(crate) fn concerns(payload: &[u8]) -> bool {
    quic::is_long(payload) || dtls::is_handshake(payload)
}
