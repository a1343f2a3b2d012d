//! Which hello belongs to which request: the rules, without Arrow and without the dataflow.
//!
//! Hellos and requests are taken in in the order of event time, hellos first where times are equal, so that every
//! outcome is a function of the rows alone. A request's event time is its end, when its line was written; hellos are
//! compared with its begin.
//!
//! - A hello is alive from its own time for `window`, and after the end of each match for `keepalive_ttl`, but never for
//!   more than `max_age` in all. It is held for `longest` more: a request that began while it was alive may end until then.
//! - A request is given the latest hello of its key that was alive when it began and is not after its begin: at once.
//!   Failing that, it waits for the first that follows its begin by at most `tolerance` (the two sensors' clocks may differ).
//! - A hello that another sensor has seen too is one hello: the first of them counts.
//! - Beyond a bound, the hello that would expire first makes room.

use super::connections::{ConnId, Connections, Key, NONE, UNKNOWN};
use super::store::Row;
use crate::timeline::{Timed, Timeline};

mod expiry;
mod hello;
mod outcomes;
mod unmatched;

use hello::{Due, Hello};
pub(super) use outcomes::{Decision, Outcomes, Side};
use unmatched::{Queue, Unmatched, rest_of};

/// The rules' parameters; times in ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub window: i64,
    pub keepalive_ttl: i64,
    pub max_age: i64,
    /// The longest that a request may take and still find its hello.
    pub longest: i64,
    /// How far a hello may be after its request's begin.
    pub tolerance: i64,
    /// How long a request without a hello waits; at least `tolerance`.
    pub wait: i64,
    pub one_to_one: bool,
    /// The most hellos that are held; one with long texts counts for several.
    pub max_hellos: usize,
}

/// The most time between two sightings of one hello by different sensors, in ns: 2 s. Clocks that are kept by NTP
/// differ by less, and a client hardly makes a second connection from the same port in that time.
pub(super) const SIGHTINGS_WITHIN: i64 = 2_000_000_000;

/// The most hellos that one key holds. Ports are not reused that fast, so only forged packets reach it; it bounds the
/// work for a row.
pub(super) const MAX_PER_KEY: u32 = 256;

/// The most rows of [`Matcher::look_ahead`].
pub(super) const AHEAD: usize = 64;

/// After the last time: no row has it.
pub(super) const END: i64 = i64::MAX;

/// A row that waits for its turn; ordered by time, then by position in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub time: i64,
    pub seq: u64,
    /// When a request began; of a hello its time.
    pub begin: i64,
    pub row: Row,
    pub connection: ConnId,
}

impl Timed for Waiting {
    fn time(&self) -> i64 {
        self.time
    }
}

impl Waiting {
    /// The row without its place in the input.
    pub fn side(&self) -> Side {
        Side { row: self.row, time: self.time, begin: self.begin }
    }
}

/// The hellos and the unmatched requests of one worker.
pub(super) struct Matcher {
    rules: Rules,
    connections: Connections,
    hellos: Vec<Hello>,
    free: Vec<u32>,
    schedule: Timeline<Due>,
    unmatched: Queue,
    /// What the hellos count for against the bound.
    units: usize,
}

impl Matcher {
    /// Holds nothing; hellos are looked at in steps of `step` ns.
    pub fn new(rules: Rules, step: i64) -> Self {
        Self {
            rules,
            connections: Connections::default(),
            hellos: Vec::new(),
            free: Vec::new(),
            schedule: Timeline::new(step),
            unmatched: Queue::default(),
            units: 0,
        }
    }

    /// How many hellos are held.
    pub fn hellos(&self) -> usize {
        self.schedule.len()
    }

    /// What the hellos that are held count for.
    pub fn units(&self) -> usize {
        self.units
    }

    /// How many requests wait for a hello, with decided ones that are still in the queue.
    pub fn unmatched(&self) -> usize {
        self.unmatched.len()
    }

    /// The earliest request that waits for a hello.
    pub fn first_unmatched(&self) -> Option<i64> {
        self.unmatched.first().map(|request| request.time)
    }

    /// A key's hash for [`Matcher::arrive`].
    pub fn hash(&self, key: &Key) -> u64 {
        self.connections.hash(key)
    }

    /// Notes a row that has arrived. It must come back through [`Matcher::hello`], [`Matcher::request`] or
    /// [`Matcher::turn_away`].
    pub fn arrive(&mut self, key: &Key, hash: u64) -> ConnId {
        self.connections.wait(key, hash)
    }

    /// Looks at what [`Matcher::request`] will look at for these rows, all of them at once: the processor then waits for
    /// memory once and not for each.
    pub fn look_ahead(&self, rows: &[Waiting]) {
        let mut latest = [NONE; AHEAD];
        for (slot, row) in latest.iter_mut().zip(rows.iter().filter(|row| row.connection != UNKNOWN)) {
            *slot = self.connections[row.connection].latest;
        }
        let hellos = latest.iter().filter_map(|slot| self.hellos.get(*slot as usize));
        std::hint::black_box(hellos.fold(0, |all, hello| all ^ hello.time));
    }

    /// Forgets a row that has arrived.
    pub fn turn_away(&mut self, waiting: &Waiting) {
        self.connections.done(waiting.connection);
    }

    /// Takes in a hello, which counts for so many `units` against the bound. `is_same` says of two rows whether they are sightings of one hello by different sensors.
    pub fn hello(&mut self, hello: Waiting, units: u32, is_same: impl Fn(Row, Row) -> bool, out: &mut Outcomes) {
        if hello.connection == UNKNOWN {
            out.alone.push(hello.side());
            return;
        }
        if self.sightings(hello.connection, hello.time).any(|other| is_same(other, hello.row)) {
            out.sightings += 1;
            out.finished.push(hello.row);
            self.connections.done(hello.connection);
            return;
        }
        let Waiting { time, connection, .. } = hello;
        if self.connections[connection].hellos >= MAX_PER_KEY {
            out.evicted.push(hello.side());
            self.connections.done(connection);
            return;
        }
        let slot = self.hold(&hello, units);
        self.serve_unmatched(slot, out);
        self.connections.done(connection);
        while self.units > self.rules.max_hellos && self.hellos() > 0 {
            self.evict(time, out);
        }
    }

    /// Puts a hello among those of its connection, which are in the order of time, and schedules its end. Returns its slot.
    fn hold(&mut self, hello: &Waiting, units: u32) -> u32 {
        let &Waiting { time, seq, row, connection, .. } = hello;
        let (mut later, mut earlier) = (NONE, self.connections[connection].latest);
        while earlier != NONE && (self.hellos[earlier as usize].time, self.hellos[earlier as usize].seq) > (time, seq) {
            (later, earlier) = (earlier, self.hellos[earlier as usize].earlier);
        }
        let fresh = Hello { time, seq, last: i64::MIN, row, connection, matches: 0, earlier, units };
        self.units += units as usize;
        let at = fresh.held_until(&self.rules);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.hellos[slot as usize] = fresh;
                slot
            }
            None => {
                self.hellos.push(fresh);
                (self.hellos.len() - 1) as u32
            }
        };
        self.schedule.push(Due { at, rank: (time, seq), hello: slot });
        match later {
            NONE => self.connections[connection].latest = slot,
            later => self.hellos[later as usize].earlier = slot,
        }
        self.connections[connection].hellos += 1;
        slot
    }

    /// Takes in a request. It is decided if a hello is known, or if none can be; otherwise it waits for one.
    pub fn request(&mut self, request: Waiting, out: &mut Outcomes) {
        if request.connection == UNKNOWN {
            return self.request_now(request, out);
        }
        if self.decide(&request, out) {
            return;
        }
        let chain = &mut self.connections[request.connection].unmatched;
        *chain = self.unmatched.push(request, *chain);
    }

    /// Decides a request with what is known, whatever may come.
    pub fn request_now(&mut self, request: Waiting, out: &mut Outcomes) {
        let is_unknown = request.connection == UNKNOWN;
        out.without_port += u64::from(is_unknown);
        if is_unknown || !self.decide(&request, out) {
            self.leave_alone(&request, out);
        }
    }

    /// Lets a request go without a hello.
    fn leave_alone(&mut self, request: &Waiting, out: &mut Outcomes) {
        if request.connection != UNKNOWN {
            out.too_long += u64::from(request.time.saturating_sub(request.begin) > self.rules.longest);
            let is_before = |slot: u32| self.hellos[slot as usize].time <= request.begin;
            out.after_expiry += u64::from(self.chain(request.connection).any(is_before));
        }
        out.decisions.push(Decision::Request { request: request.side() });
        self.connections.done(request.connection);
    }

    /// Decides at most `limit` requests for which every hello that they may have, before `now`, has been taken in.
    /// Returns whether that was all.
    pub fn give_up(&mut self, now: i64, limit: usize, out: &mut Outcomes) -> bool {
        for _ in 0..limit {
            let Some(first) = self.unmatched.first() else { return true };
            if first.time.saturating_add(self.rules.wait).min(END - 1) >= now {
                return true;
            }
            self.give_up_first(out);
        }
        self.unmatched.len() == 0
    }

    /// Decides the first of the requests that wait for a hello.
    pub fn give_up_first(&mut self, out: &mut Outcomes) {
        let Some((number, Unmatched { request, next, .. })) = self.unmatched.pop() else { return };
        let chain = &mut self.connections[request.connection].unmatched;
        if chain.0 == number {
            *chain = rest_of(next, chain.1);
        }
        self.leave_alone(&request, out);
        self.unmatched.drop_decided();
    }

    /// The hellos of a connection, the latest first.
    fn chain(&self, connection: ConnId) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(some(self.connections[connection].latest), move |slot| {
            some(self.hellos[*slot as usize].earlier)
        })
    }

    /// The rows of a connection's hellos that may be other sightings of one at `time`.
    fn sightings(&self, connection: ConnId, time: i64) -> impl Iterator<Item = Row> {
        self.chain(connection)
            .map(|slot| &self.hellos[slot as usize])
            .skip_while(move |hello| hello.time > time.saturating_add(SIGHTINGS_WITHIN))
            .take_while(move |hello| hello.time >= time.saturating_sub(SIGHTINGS_WITHIN))
            .map(|hello| hello.row)
    }

    /// Whether a hello was found.
    fn decide(&mut self, request: &Waiting, out: &mut Outcomes) -> bool {
        let time = request.begin;
        // Hellos after its begin: those that came while it was served, or before a bound forced it out.
        let mut after = None;
        let mut found = None;
        for slot in self.chain(request.connection) {
            let hello = &self.hellos[slot as usize];
            let usable = hello.is_usable(&self.rules, time);
            if hello.time <= time {
                if usable {
                    found = Some(slot);
                    break;
                }
            } else if usable && hello.time <= time.saturating_add(self.rules.tolerance) {
                after = Some(slot);
            }
        }
        let Some(slot) = found.or(after) else { return false };
        self.give(request, slot, out);
        true
    }

    /// Gives a hello to the requests that waited for it.
    fn serve_unmatched(&mut self, slot: u32, out: &mut Outcomes) {
        let connection = self.hellos[slot as usize].connection;
        let (mut number, last) = self.connections[connection].unmatched;
        while let Some(entry) = self.unmatched.get_mut(number) {
            let (request, next) = (entry.request, entry.next);
            let hello = &self.hellos[slot as usize];
            if hello.time <= request.begin.saturating_add(self.rules.tolerance) {
                if !hello.is_usable(&self.rules, request.begin) {
                    break;
                }
                entry.decided = true;
                self.give(&request, slot, out);
            }
            // A request that no longer can have a hello leaves the chain; it is decided when its wait is over.
            number = next;
        }
        self.connections[connection].unmatched = rest_of(number, last);
        self.unmatched.drop_decided();
    }

    /// Decides a request: it has this hello.
    fn give(&mut self, request: &Waiting, slot: u32, out: &mut Outcomes) {
        let hello = &mut self.hellos[slot as usize];
        hello.last = hello.last.max(request.time);
        hello.matches = hello.matches.saturating_add(1);
        if hello.matches == 1 {
            out.delays.push(request.begin.saturating_sub(hello.time));
        }
        out.decisions.push(Decision::Matched {
            request: request.side(),
            hello: hello.side(),
            keepalives: hello.matches,
        });
        self.connections.done(request.connection);
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
