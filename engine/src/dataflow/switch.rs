//! One dataflow takes the place of another.

use std::sync::Arc;

use super::Dataflow;
use crate::batch::Time;

/// From now on the sinks of the `new` dataflows write and those of the `old` ones do not: each pair changes over where the
/// old sink is. Rows of the logs that are `ending` stay with the old sinks. The latest tick of a switch.
pub(crate) fn hand_over(old: &[Arc<Dataflow>], new: &[Arc<Dataflow>], ending: &[String]) -> Time {
    let mut latest = 0;
    for sink in old.iter().flat_map(|dataflow| dataflow.sinks.lock().clone()) {
        let at = sink.stop_here(ending);
        // One whose input has ended has decided on all there will ever be.
        latest = latest.max(if at == Time::MAX { 0 } else { at });
    }
    for dataflow in new {
        for sink in dataflow.sinks.lock().iter() {
            sink.take_over();
        }
        dataflow.take_charge();
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Claim, Place, SinkState};
    use crate::progress::Floors;

    fn names(logs: &[&str]) -> Vec<String> {
        logs.iter().map(|log| (*log).to_owned()).collect()
    }

    fn logs_of(logs: &[&str]) -> Vec<(String, bool)> {
        logs.iter().map(|log| ((*log).to_owned(), log.starts_with("derived"))).collect()
    }

    fn sink(logs: &[&str]) -> Arc<SinkState> {
        Arc::new(SinkState::new("out", logs_of(logs), Vec::new(), None))
    }

    fn sink_of_derived() -> Arc<SinkState> {
        sink(&["derived"])
    }

    fn successor(old: &Arc<SinkState>, logs: &[&str]) -> SinkState {
        let place = Place { predecessor: Some(Arc::clone(old)), known_logs: old.logs.clone() };
        SinkState::new("out", logs_of(logs), Vec::new(), Some(place))
    }

    #[test]
    fn rows_before_the_boundary_are_the_old_sinks_and_the_others_the_new_ones() {
        let old = sink(&["requests"]);
        let new = successor(&old, &["requests"]);
        old.decide(500);
        new.decide(700);
        assert_eq!((new.claim(499, 1), new.claim(500, 1)), (Claim::Earlier, Claim::Wait), "the old one is at 500");
        old.decide(600);
        assert_eq!(old.stop_here(&[]), 600);
        new.take_over();
        assert_eq!((old.claim(599, 1), old.claim(600, 1)), (Claim::Write, Claim::Later));
        assert_eq!((new.claim(599, 1), new.claim(600, 1)), (Claim::Earlier, Claim::Write));
        assert_eq!((old.claim(600, 0), new.claim(600, 0)), (Claim::Later, Claim::Write), "what is of several logs too");
        assert!(!new.may_open());
        old.finish();
        assert!(new.may_open());
    }

    #[test]
    fn a_log_that_is_new_is_written_from_its_beginning_and_one_that_ends_to_its_end() {
        let old = sink(&["hellos", "socket"]);
        let new = successor(&old, &["hellos", "file"]);
        old.decide(600);
        assert_eq!(new.claim(5, 2), Claim::Wait, "a row of the file");
        old.stop_here(&names(&["socket"]));
        new.take_over();
        assert_eq!((old.claim(600, 1), old.claim(900, 2)), (Claim::Later, Claim::Write));
        assert_eq!((new.claim(5, 1), new.claim(5, 2)), (Claim::Earlier, Claim::Write));
        assert_eq!(
            (old.claim(600, 0), new.claim(600, 0), new.claim(599, 0)),
            (Claim::Later, Claim::Write, Claim::Earlier)
        );
    }

    #[test]
    fn with_other_logs_alone_nothing_is_shared() {
        let old = sink(&["socket"]);
        let new = successor(&old, &["file"]);
        old.decide(600);
        old.stop_here(&names(&["socket"]));
        new.take_over();
        assert_eq!((old.claim(900, 1), old.claim(900, 0)), (Claim::Write, Claim::Write));
        assert_eq!((new.claim(0, 1), new.claim(0, 0)), (Claim::Write, Claim::Write));
    }

    #[test]
    fn a_note_says_what_of_each_log_is_kept() {
        let kept = Floors { logs: [("".to_owned(), 500), ("requests".to_owned(), 700)].into(), all: 500 };
        let sink = sink(&["requests", "new"]);
        assert_eq!(sink.resume(&kept), [500, 700, 0]);
        assert_eq!(
            (sink.claim(699, 1), sink.claim(700, 1), sink.claim(1, 2)),
            (Claim::Earlier, Claim::Write, Claim::Write)
        );
        let derived = sink_of_derived();
        assert_eq!(derived.resume(&kept), [500, 500], "its rows came without that log before");
        let older = Floors { all: 300, ..Floors::default() };
        assert_eq!(SinkState::new("out", logs_of(&["requests"]), Vec::new(), None).resume(&older), [300, 300]);
    }

    #[test]
    fn a_sink_whose_input_has_ended_leaves_nothing_to_its_successor() {
        let old = sink(&["pipe"]);
        let new = successor(&old, &["pipe"]);
        old.decide(Time::MAX);
        old.stop_here(&[]);
        new.take_over();
        assert_eq!((old.claim(900, 1), new.claim(900, 1)), (Claim::Write, Claim::Earlier));
    }
}
