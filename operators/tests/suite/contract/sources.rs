//! Sources: all that was sent is a row, or rejected.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use engine::shared::Shared;

use super::cases::RECORDED;
use super::files::{base, lines};
use super::node::{Run, same};
use super::{CUTS, WORKERS, cases, is_source};
use crate::replay::{run, run_with};

pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A sender to a socket that a run has made.
pub(super) fn sender(path: &Path) -> UnixDatagram {
    let sender = UnixDatagram::unbound().expect("made");
    until("the socket", || sender.connect(path).is_ok());
    sender
}

/// Packets of a pcap file, by nothing but the lengths in it.
fn packets_in(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("there");
    let (mut at, mut packets) = (24, 0);
    while let Some(len) = bytes.get(at + 8..at + 12) {
        at += 16 + u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        packets += 1;
    }
    packets
}

#[test]
fn a_source_gives_the_same_rows_at_any_number_of_workers_and_all_that_was_sent_is_a_row_or_rejected() {
    let lines = lines(6, base());
    for case in cases(is_source) {
        // How lines are put into datagrams; a file cannot be cut.
        let cuts = if case.kind == "source.unix_socket" { &CUTS[..] } else { &CUTS[..1] };
        let mut first = None;
        for (workers, cut) in WORKERS.into_iter().flat_map(|workers| cuts.iter().map(move |cut| (workers, *cut))) {
            let run = Run::with(case, cut, workers, |dir, plan| {
                if plan.is_bounded() {
                    return run(plan, workers);
                }
                let shared = Arc::new(Shared::new(&plan));
                let running = Arc::clone(&shared);
                let thread = std::thread::spawn(move || run_with(plan, workers, &running, |_, _| {}));
                let sender = sender(&dir.join("lines"));
                for some in lines.chunks(cut) {
                    sender.send(&some.join(&b'\n')).expect("sent");
                }
                let node = shared.metrics.node("n", "");
                let read = || node.rows_out.load(Relaxed) + node.rejected.load(Relaxed);
                until("the lines", || read() >= lines.len() as u64);
                shared.stop();
                thread.join().expect("ends");
                shared
            });
            run.check_counters();
            let sent = match case.kind {
                "source.pcap" => packets_in(Path::new(RECORDED).join("capture.pcap").as_path()),
                _ => lines.len() as u64,
            };
            let node = run.node("n");
            let read = node.rows_out.load(Relaxed) + node.rejected.load(Relaxed) + run.counter("filtered");
            assert_eq!(read + run.counter("bad_time"), sent, "{case:?}, {workers} workers, {cut} lines at once");
            assert!(run.ports.iter().all(|port| !port.batches.is_empty()), "{case:?}: rows at each port");
            let left = run.what_left();
            let first = first.get_or_insert_with(|| left.clone());
            for (found, expected) in left.iter().zip(first) {
                same(found, expected, &format!("{}, {workers} workers, {cut} lines at once", case.kind));
            }
        }
    }
}
