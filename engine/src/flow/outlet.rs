//! A sink as the run sees it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::{Flow, lock};
use crate::batch::Time;

/// What a sink has to do with ticks that are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Keep them: the dataflow whose place this one takes is still writing.
    Wait,
    /// Write those in the range, forget the others.
    Write(Range<Time>),
}

/// One worker's instance of a sink, as the run sees it.
#[derive(Debug)]
pub struct Outlet {
    flow: Arc<Flow>,
    workers: usize,
    /// What was said already; in the order of [`Flow`]'s counters.
    said: [bool; 5],
}

impl Outlet {
    pub(crate) fn new(flow: Arc<Flow>, workers: usize) -> Self {
        flow.outlets[0].fetch_add(1, SeqCst);
        Self { flow, workers, said: [false; 5] }
    }

    /// Whether what is written to may be opened: nobody else writes to it any more.
    pub fn may_open(&self) -> bool {
        if self.flow.gate.is_shut() {
            return false;
        }
        let mut others = lock(&self.flow.predecessors);
        // Let go, so that no chain of all that ever ran is kept.
        others.retain(|other| !other.has_finished(self.workers));
        others.is_empty()
    }

    /// What is written to is open.
    pub fn opened(&mut self) {
        self.say(1);
    }

    /// Asks what to do with the ticks before `frontier`, all of which are complete.
    pub fn turn(&mut self, frontier: Time) -> Turn {
        let range = self.flow.gate.decide(frontier);
        if frontier >= range.end {
            self.say(4);
        }
        if range.start == Time::MAX || self.may_open() {
            return Turn::Write(range);
        }
        if self.is_parking() {
            // It has written nothing yet, and those before it may not be done before the end of the run.
            self.parked();
        }
        Turn::Wait
    }

    /// Whether the run ends, so that what is complete should be made durable now.
    pub fn is_parking(&self) -> bool {
        self.flow.is_parking()
    }

    /// Everything up to the end of the range is written and durable.
    pub fn finished(&mut self) {
        self.say(2);
    }

    /// What is complete has been made durable because the run ends.
    pub fn parked(&mut self) {
        self.say(3);
    }

    fn say(&mut self, what: usize) {
        if !self.said[what] {
            self.said[what] = true;
            self.flow.outlets[what].fetch_add(1, SeqCst);
        }
    }
}
