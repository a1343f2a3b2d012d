//! Any segmentation gives the same hello; nothing panics.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

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
        let mut whole = Capture::new(Limits::default());
        whole.stream(isn, &[(0, &stream)]);
        let mut split = Capture::new(Limits::default());
        let pieces: Vec<(usize, &[u8])> = pieces.iter().map(|(a, b)| (*a, &stream[*a..*b])).collect();
        split.stream(isn, &pieces);
        prop_assert_eq!(whole.only_ja4(), split.only_ja4());
        prop_assert_eq!(split.extractor.buffered_bytes(), 0);
    }

    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        linktype in prop::sample::select(vec![0, 1, 12, 101, 108, 113, 276, 147]),
    ) {
        let mut capture = Capture::new(Limits { max_flows: 4, max_buffered_bytes: 500, ..Limits::default() });
        for frame in &frames {
            capture.frame(linktype, frame);
        }
    }

    #[test]
    fn damaged_frames_never_panic(
        damage in prop::collection::vec((0usize..700, any::<u8>(), 0usize..3), 1..6),
        flags in any::<u8>(),
    ) {
        let record = sample::chrome().record();
        let parts = [&record[..150], &record[150..300], &record[300..]];
        let mut capture = Capture::new(Limits { max_segments: 3, max_hello_bytes: 400, ..Limits::default() });
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
