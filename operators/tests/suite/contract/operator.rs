//! Operators: rows and watermarks decide what leaves, and each row is accounted for.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use engine::contract::Kind;

use super::cases::{Both, Case, Groups, GroupsInTime, InTime, Packets, Requests, WITHOUT, WITHOUT_ROWS, case};
use super::node::{Port, Run, same};
use super::{CUTS, ROWS, WORKERS, cases, is_operator};

#[test]
fn what_leaves_a_node_depends_neither_on_workers_nor_on_batches() {
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for case in cases(is_operator) {
        let first = Run::of(case, CUTS[0], WORKERS[0]);
        first.check();
        let late = |port: &Port| port.batches.iter().any(|batch| batch.late);
        assert!(
            [Groups, InTime, GroupsInTime].contains(&case.input) || first.input.as_ref().is_none_or(late),
            "{case:?}: no row is late"
        );
        let expected = first.what_left();
        used.extend(first.ports.iter().filter(|port| !port.batches.is_empty()).map(|port| (case.kind, port.name)));
        for workers in WORKERS {
            for cut in CUTS {
                let again = Run::of(case, cut, workers);
                again.check();
                for ((found, expected), port) in again.what_left().iter().zip(&expected).zip(&again.ports) {
                    let (kind, options, port) = (case.kind, case.options, port.name);
                    same(found, expected, &format!("{kind} ({options}), {port}, {workers} workers, batches of {cut}"));
                }
            }
        }
    }
    let has_case = |kind: &Kind| WITHOUT.iter().all(|(name, _)| *name != kind.name);
    for kind in operators::registry().kinds().iter().filter(|kind| is_operator(kind) && has_case(kind)) {
        let excused = |port: &str| WITHOUT_ROWS.iter().any(|(of, name, _)| (*of, *name) == (kind.name, port));
        let unused: Vec<_> = kind.outputs.iter().filter(|port| !used.contains(&(kind.name, port.name))).collect();
        let unused: Vec<_> = unused.into_iter().filter(|port| !excused(port.name)).collect();
        assert!(unused.is_empty(), "{}: no case has rows at {unused:?}", kind.name);
    }
}

#[test]
fn what_a_bound_pushes_out_is_counted_and_nothing_is_lost_unseen() {
    let bounded = [
        case("tls.client_hello", Packets, "max_flows: 3, retries: true"),
        case("correlate", Both, "window: 1m, max_hellos: 12, ORPHANS"),
        case("correlate", Both, "window: 1m, max_requests: 8, ORPHANS"),
        case("aggregate", Requests, "by: [src_ip, flag], window: 10s, max_groups: 4, FEATURES"),
        case("recurrence", Requests, "look_back: 1h, max_rows: 8"),
        case("recurrence", Groups, "look_back: 1h, max_rows: 8"),
    ];
    for case in &bounded {
        for (workers, cut) in [(1, CUTS[0]), (1, 1), (2, 7), (4, 1)] {
            let run = Run::of(case, cut, workers);
            run.check();
            let evicted = run.node("n").evicted.load(Relaxed);
            let pushed_out = match case.kind {
                "tls.client_hello" => {
                    let gone = ["flows_evicted", "flows_evicted_syn", "flows_recycled"];
                    let all = Run::of(&Case { options: "retries: true", ..*case }, cut, workers).counter("hellos");
                    let gone: u64 = gone.iter().map(|name| run.counter(name)).sum();
                    assert!(
                        all - run.counter("hellos") <= gone,
                        "{case:?}: a hello is missed with its connection only"
                    );
                    gone
                }
                "recurrence" if case.input == Requests => {
                    let held: i64 = run.port("out").numbers("detections").iter().sum();
                    assert_eq!(held as u64 + evicted, run.node("n").rows_in.load(Relaxed), "{case:?}");
                    evicted
                }
                _ => evicted + run.counter("requests_decided_early"),
            };
            assert!(pushed_out > 0, "{case:?}: the bound is not met");
        }
    }
}

#[test]
fn a_receiver_that_is_away_costs_rows_that_are_counted() {
    let case = case("sink.unix_socket", Requests, "path: nobody, max_wait: 1ms, queue: 5");
    let run = Run::of(&case, 7, 2);
    run.check();
    assert_eq!(run.counter("dropped"), ROWS as u64);
}
