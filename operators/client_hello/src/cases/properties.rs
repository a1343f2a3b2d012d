//! Any segmentation gives the same hello; nothing panics.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// All that can be decoded, and LINKTYPE_USER0.
const LINKTYPES: [i32; 17] = [0, 1, 9, 12, 14, 50, 51, 101, 104, 107, 108, 113, 147, 228, 229, 239, 276];

/// A hello cut into pieces that overlap, come in any order and more than once; half of them behind a tunnel.
fn segments() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    let front = prop_oneof![Just(&[][..]), prop::sample::select(&sample::FRONTS[..])];
    let cuts = prop::collection::vec(0.0..1.0f64, 0..12);
    (front, 1usize..5, cuts, 0usize..2000).prop_flat_map(|(front, records, cuts, padding)| {
        let mut spec: Spec = sample::chrome();
        spec.extensions.push((0x0015, vec![0; padding]));
        let stream = [front, &sample::in_records(&spec.message(), records)].concat();
        let len = stream.len();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        let pieces: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        let extra = prop::collection::vec((0..len, 0..len), 0..8);
        let all = extra.prop_map(move |extra| {
            let extra = extra.iter().map(|(a, b)| (*a.min(b), *a.max(b)));
            pieces.iter().copied().chain(extra).collect::<Vec<_>>()
        });
        (Just(stream), all.prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_gives_the_same_hello((stream, pieces) in segments(), isn in any::<u32>()) {
        let mut whole = Capture::new(at_once());
        whole.stream(isn, &[(0, &stream)]);
        let mut split = Capture::new(at_once());
        let pieces: Vec<(usize, &[u8])> = pieces.iter().map(|(a, b)| (*a, &stream[*a..*b])).collect();
        split.stream(isn, &pieces);
        prop_assert_eq!(whole.only_ja4(), split.only_ja4());
        prop_assert_eq!(split.extractor.buffered_bytes(), 0);
    }

    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        linktype in prop::sample::select(LINKTYPES.to_vec()),
    ) {
        let limits = Limits { max_flows: 4, max_buffered_bytes: 500, tunnels: Tunnels::ALL, ..at_once() };
        let mut capture = Capture::new(limits);
        for frame in &frames {
            capture.frame(linktype, frame);
        }
    }

    #[test]
    fn damaged_encapsulations_never_panic(
        damage in prop::collection::vec((0usize..120, any::<u8>()), 0..4),
        len in 0usize..800,
        linktype in prop::option::weighted(0.1, prop::sample::select(LINKTYPES.to_vec())),
    ) {
        let packet = sample::tcp_packet(&Tcp { payload: &sample::chrome().record(), ..Tcp::default() });
        let mut capture = Capture::new(Limits { max_flows: 4, tunnels: Tunnels::ALL, ..at_once() });
        let all = encapsulations::all(&packet);
        for mut encapsulated in all {
            encapsulated.frame.truncate(len);
            for (at, value) in &damage {
                if let Some(byte) = encapsulated.frame.get_mut(*at) {
                    *byte = *value;
                }
            }
            capture.frame(linktype.unwrap_or(encapsulated.linktype), &encapsulated.frame);
        }
        let counters = capture.counters();
        let counted: u64 = counters.undecoded.iter().sum();
        prop_assert!(counted <= counters.packets_received);
    }

    #[test]
    fn damaged_frames_never_panic(
        damage in prop::collection::vec((0usize..700, any::<u8>(), 0usize..3), 1..6),
        flags in any::<u8>(),
    ) {
        let record = sample::chrome().record();
        let parts = [&record[..150], &record[150..300], &record[300..]];
        let mut capture = Capture::new(Limits { max_segments: 3, max_hello_bytes: 400, ..at_once() });
        for (n, part) in parts.into_iter().enumerate() {
            let seq = 8 + n as u32 * 150;
            let mut frame = sample::tcp_packet(&Tcp { seq, flags, payload: part, ..Tcp::default() });
            for (at, value, _) in damage.iter().filter(|(_, _, which)| *which == n) {
                let at = at % frame.len();
                frame[at] = *value;
            }
            capture.frame(101, &frame);
        }
    }
}
