//! Initial packets that a server drops, around real ones: the fingerprint is the server's, or the hello is flagged.

use proptest::prelude::*;

use super::*;
use crate::quic::sample::{Header, crypto};

const ID: &[u8] = b"12345678";
const OTHER_ID: &[u8] = b"87654321";

/// A forged Initial: where it comes, under which keys, what it holds and at which offset.
#[derive(Debug, Clone)]
struct Forged {
    place: usize,
    same_keys: bool,
    offset: usize,
    bytes: Vec<u8>,
    low_ttl: bool,
}

/// The message of somebody else.
fn other() -> Vec<u8> {
    let mut spec = sample::chrome();
    spec.ciphers.truncate(9);
    let mut message = spec.message();
    message[6..38].fill(0xee);
    message
}

fn forged() -> impl Strategy<Value = Forged> {
    let len = other().len();
    let part = (0..len, 0..len).prop_map(|(a, b)| (a.min(b), other()[a.min(b)..=a.max(b)].to_vec()));
    let noise = (0usize..300, prop::collection::vec(any::<u8>(), 1..200));
    let content = prop_oneof![2 => Just((0, other())), 2 => part, 1 => noise];
    (0usize..6, any::<bool>(), content, any::<bool>()).prop_map(|(place, same_keys, (offset, bytes), low_ttl)| Forged {
        place,
        same_keys,
        offset,
        bytes,
        low_ttl,
    })
}

fn initial(number: u32, id: &'static [u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let header = Header { number, key_id: id, dcid: id, ..Header::default() };
    sample::udp_packet(&header.around(&crypto(offset, bytes)))
}

/// The server's first answer.
fn answer() -> Vec<u8> {
    let payload = [&[0xc1, 0, 0, 0, 1, 4, 1, 2, 3, 4, 8][..], b"serverid", &[0, 0x40, 100], &[7; 100]].concat();
    let mut packet = sample::udp_packet(&payload);
    packet[12..20].rotate_left(4);
    packet[20..24].rotate_left(2);
    packet
}

proptest! {
    #![proptest_config(config(1000, 16))]

    #[test]
    fn what_the_server_drops_is_not_believed_or_flagged(
        cuts in prop::collection::vec(1usize..300, 0..2),
        forged in prop::collection::vec(forged(), 1..4),
        answers in any::<bool>(),
    ) {
        let message = sample::chrome().message();
        let mut cuts: Vec<usize> = cuts.into_iter().chain([0, message.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let parts = cuts.windows(2).enumerate();
        let mut packets: Vec<Vec<u8>> =
            parts.map(|(n, cut)| initial(n as u32, ID, cut[0], &message[cut[0]..cut[1]])).collect();
        if answers {
            packets.push(answer());
        }
        for (n, forged) in forged.into_iter().enumerate() {
            let id = if forged.same_keys { ID } else { OTHER_ID };
            let mut packet = initial(100 + n as u32, id, forged.offset, &forged.bytes);
            // What nothing tells from the real ones the server takes, too.
            if forged.low_ttl || forged.same_keys {
                packet[8] = 3;
            }
            packets.insert(forged.place.min(packets.len()), packet);
        }
        let mut capture = Capture::new(Limits::default());
        packets.iter().for_each(|packet| capture.frame(101, packet));
        capture.finish();
        let hellos: Vec<&Hello> = capture.hellos.iter().filter(|hello| hello.index == 0).collect();
        prop_assert!(!hellos.is_empty(), "hidden: {:?}", capture.counters());
        for hello in hellos {
            let is_own = hello.ja4.get(3..) == JA4.get(3..);
            prop_assert!(is_own || hello.ambiguous, "forged: {}", hello.ja4);
        }
        prop_assert_eq!(capture.extractor.buffered_bytes(), 0);
    }
}
