//! Traffic in which nothing is forged: whatever the network does to it, each hello leaves once, right, and without a flag.

use proptest::prelude::*;

use super::wire::{ACK, DATA, Fault, ISN, Wire};
use super::*;

/// What a capture shows of the client's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sums {
    Right,
    /// Those of data are open, as where a receiving host puts segments together.
    DataOpen,
    /// As on a sending host.
    Open,
    /// Addresses were changed afterwards.
    Wrong,
}

/// What a network and a capture do to a connection over TCP.
#[derive(Debug, Clone)]
struct Weather {
    isn: u32,
    six: bool,
    /// Where the client's bytes are cut into segments.
    cuts: Vec<usize>,
    /// Parts of them that are sent again: after which packet, from where to where.
    again: Vec<(usize, usize, usize)>,
    /// How many places each packet comes late.
    late: Vec<usize>,
    /// The server acknowledges only every so many segments, and the last one.
    acks: usize,
    sees_server: bool,
    sees_syn: bool,
    sums: Sums,
    /// A keep-alive probe before the hello, and behind it.
    probes: [bool; 2],
    /// The capture shows each packet twice, behind a router the second time.
    twice: bool,
    /// Bytes that the client sends when the server has answered.
    upload: usize,
    /// Milliseconds between two packets.
    pace: i64,
}

fn weather(len: usize) -> impl Strategy<Value = Weather> {
    let isn = prop_oneof![Just(ISN), (0..2 * len as u32).prop_map(|n| u32::MAX - n), any::<u32>()];
    let again = prop::collection::vec((0usize..14, 0..len, 0..len), 0..4);
    let numbers = (isn, prop::collection::vec(0..len, 0..5), again, prop::collection::vec(0usize..4, 24), 1usize..4);
    let switches = (
        any::<[bool; 6]>(),
        prop::sample::select(vec![Sums::Right, Sums::DataOpen, Sums::Open, Sums::Wrong]),
        prop::bool::weighted(0.8),
        prop_oneof![Just(0), 0usize..4000, 0usize..200_000],
        1i64..8,
    );
    (numbers, switches).prop_map(|(numbers, (switches, sums, sees_syn, upload, pace))| {
        let (isn, cuts, again, late, acks) = numbers;
        let [six, sees_server, early_probe, late_probe, twice, is_late] = switches;
        // Without a SYN the first segment tells where the stream begins.
        let late = if is_late && sees_syn { late } else { vec![0; 24] };
        let probes = [early_probe, late_probe];
        Weather { isn, six, cuts, again, late, acks, sees_server, sees_syn, sums, probes, twice, upload, pace }
    })
}

impl Weather {
    /// The packets of a connection whose client sends these bytes, as they are captured.
    fn packets(&self, stream: &[u8]) -> Vec<Wire> {
        let start = self.isn.wrapping_add(1);
        let at = |offset: usize| start.wrapping_add(offset as u32);
        let mut packets =
            vec![Wire::client(self.isn, SYN, b""), Wire::server(start, SYN | ACK), Wire::client(start, ACK, b"")];
        packets.extend(self.probes[0].then(|| Wire::client(self.isn, ACK, &[0])));
        let mut cuts: Vec<usize> = self.cuts.iter().copied().chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut segments: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        for (place, a, b) in &self.again {
            let place = place % (segments.len() + 1);
            // What was sent already, or all up to there.
            let sent = segments[..place].iter().map(|segment| segment.1).max().unwrap_or(0);
            let (a, b) = (*a.min(b), *b.max(a));
            if a < sent {
                segments.insert(place, (a, b.min(sent).max(a + 1)));
            }
        }
        let mut acked = 0;
        for (n, (from, to)) in segments.iter().enumerate() {
            packets.push(Wire::client(at(*from), DATA, &stream[*from..*to]));
            acked = acked.max(*to);
            if n % self.acks == 0 || n + 1 == segments.len() {
                packets.push(Wire::server(at(acked), ACK));
            }
        }
        // Its answer, and what the client sends then.
        let answer = Wire::server(at(acked), DATA);
        let ack = answer.seq.wrapping_add(100);
        packets.push(Wire { payload: [22, 3, 3, 0, 95, 2].repeat(17)[..100].to_vec(), ..answer });
        packets.extend(self.probes[1].then(|| Wire { ack, ..Wire::client(at(acked - 1), ACK, &[0]) }));
        let size = if matches!(self.sums, Sums::DataOpen | Sums::Open) { 15_000 } else { 1400 };
        for from in (0..self.upload).step_by(size) {
            let record = sample::record(23, &vec![from as u8; size.min(self.upload - from)]);
            packets.push(Wire { ack, ..Wire::client(at(acked), DATA, &record) });
            acked += record.len();
        }
        self.captured(packets)
    }

    fn captured(&self, mut packets: Vec<Wire>) -> Vec<Wire> {
        for packet in &mut packets {
            packet.six = self.six;
            if packet.from_client {
                packet.is_open = self.sums == Sums::Open || self.sums == Sums::DataOpen && packet.flags & SYN == 0;
                packet.fault = (self.sums == Sums::Wrong).then_some(Fault::Checksum);
            }
        }
        let late = |(n, packet): (usize, Wire)| (n + self.late.get(n).copied().unwrap_or(0), packet);
        let mut packets: Vec<(usize, Wire)> = packets.into_iter().enumerate().map(late).collect();
        packets.sort_by_key(|(place, _)| *place);
        let copies = |packet: Wire| {
            let again = self.twice.then(|| Wire { ttl: 63, ..packet.clone() });
            [Some(packet), again].into_iter().flatten()
        };
        let seen = |packet: &Wire| {
            let is_syn = packet.from_client && packet.flags & SYN != 0;
            (self.sees_server || packet.from_client) && (self.sees_syn || !is_syn)
        };
        packets.into_iter().map(|(_, packet)| packet).filter(seen).flat_map(copies).collect()
    }
}

fn run(packets: &[Wire], pace: i64) -> Capture {
    let mut capture = Capture::new(Limits::default());
    for packet in packets {
        capture.now += (pace - 1) * SECOND / 1000;
        capture.frame(101, &packet.packet());
    }
    capture.finish();
    capture
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let front = prop_oneof![3 => Just(&[][..]), 1 => prop::sample::select(&sample::FRONTS[..])];
    (front, 1usize..4, 0usize..2000).prop_map(|(front, records, padding)| {
        let mut spec = sample::chrome();
        spec.extensions.retain(|(kind, _)| *kind != 0x0015);
        spec.extensions.push((0x0015, vec![0; padding]));
        [front, &sample::in_records(&spec.message(), records)].concat()
    })
}

proptest! {
    #![proptest_config(config(2000, 15))]

    #[test]
    fn a_connection_over_tcp((stream, weather) in stream().prop_flat_map(|stream| {
        let weather = weather(stream.len());
        (Just(stream), weather)
    })) {
        let mut weather = weather;
        // Without a SYN only what surely begins a stream is taken for its begin.
        weather.sees_syn |= stream[0] != 22 || weather.cuts.len() + weather.again.len() > 5;
        let capture = run(&weather.packets(&stream), weather.pace);
        let hellos: Vec<_> = capture.hellos.iter().map(|hello| (hello.index, hello.ja4 == JA4, hello.ambiguous)).collect();
        prop_assert_eq!(hellos, [(0, true, false)], "{:?}", capture.counters());
        prop_assert_eq!(capture.counters().overlap_conflicts, 0);
        prop_assert_eq!((capture.extractor.buffered_bytes(), capture.extractor.flows()), (0, 0));
    }
}
