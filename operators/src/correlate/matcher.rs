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

use std::collections::VecDeque;

use super::connections::{ConnId, Connections, Key, NO_REQUEST, NONE, UNKNOWN};
use super::store::Row;
use crate::timeline::{Timed, Timeline};

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
    /// The most hellos that are held.
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

/// A row and its event time in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub row: Row,
    pub time: i64,
    /// When a request began; of a hello its time.
    pub begin: i64,
}

/// A row of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A request with its hello, and the request's number on the connection, from 1.
    Matched { request: Side, hello: Side, keepalives: u32 },
    /// A request without a hello.
    Request { request: Side },
    /// A hello without a request.
    Hello { hello: Side },
}

/// What came of the rows that were taken in.
#[derive(Default)]
pub(super) struct Outcomes {
    pub decisions: Vec<Decision>,
    /// Hellos that a bound pushed out.
    pub evicted: Vec<Side>,
    /// Hellos that expired without a match.
    pub alone: Vec<Side>,
    /// Hellos that expired after a match, and further sightings of a hello.
    pub finished: Vec<Row>,
    /// How many of `finished` are further sightings.
    pub sightings: u64,
    /// How many hellos a bound pushed out that only slow requests could have matched.
    pub expired_early: u64,
    /// How many requests of `decisions` have no hello because they do not say which connection they belong to.
    pub without_port: u64,
    /// How many requests of `decisions` have no hello because the one that was held had expired.
    pub after_expiry: u64,
    /// How many requests of `decisions` took longer than hellos are held, and have none.
    pub too_long: u64,
    /// Of each first request on a connection, how long after its hello it was, in ns.
    pub delays: Vec<i64>,
}

impl Outcomes {
    /// Forgets all, but keeps the memory.
    pub fn clear(&mut self) {
        let Self {
            decisions,
            evicted,
            alone,
            finished,
            sightings,
            expired_early,
            without_port,
            after_expiry,
            too_long,
            delays,
        } = self;
        decisions.clear();
        evicted.clear();
        alone.clear();
        finished.clear();
        delays.clear();
        (*sightings, *expired_early, *without_port, *after_expiry, *too_long) = (0, 0, 0, 0, 0);
    }
}

/// A hello that may still be matched.
struct Hello {
    time: i64,
    seq: u64,
    /// End of the last match, or `i64::MIN`.
    last: i64,
    row: Row,
    connection: ConnId,
    /// How many requests have matched.
    matches: u32,
    /// The hello of the same connection before this one, or [`NONE`].
    earlier: u32,
}

impl Hello {
    fn alive_until(&self, rules: &Rules) -> i64 {
        let first = self.time.saturating_add(rules.window);
        let kept = if self.matches > 0 { first.max(self.last.saturating_add(rules.keepalive_ttl)) } else { first };
        kept.min(self.time.saturating_add(rules.max_age)).min(END - 1)
    }

    fn held_until(&self, rules: &Rules) -> i64 {
        self.alive_until(rules).saturating_add(rules.longest).min(END - 1)
    }

    fn is_usable(&self, rules: &Rules, begin: i64) -> bool {
        self.alive_until(rules) >= begin && !(rules.one_to_one && self.matches > 0)
    }

    fn side(&self) -> Side {
        Side { row: self.row, time: self.time, begin: self.time }
    }
}

/// When to look at a hello again: not after it expires. Each hello has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: i64,
    /// The hello's own time and position in its source, so that of equal ones the first goes first.
    rank: (i64, u64),
    hello: u32,
}

impl Timed for Due {
    fn time(&self) -> i64 {
        self.at
    }
}

/// A request that waits for a hello after it.
struct Unmatched {
    request: Waiting,
    /// The next of the same connection, or [`NO_REQUEST`].
    next: u64,
    /// Has been decided.
    decided: bool,
}

/// The hellos and the unmatched requests of one worker.
pub(super) struct Matcher {
    rules: Rules,
    connections: Connections,
    hellos: Vec<Hello>,
    free: Vec<u32>,
    schedule: Timeline<Due>,
    /// In the order of time; those decided go when they get to the front, which never is one of them.
    unmatched: VecDeque<Unmatched>,
    /// The number of the first of `unmatched`.
    first: u64,
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
            unmatched: VecDeque::new(),
            first: 0,
        }
    }

    /// How many hellos are held.
    pub fn hellos(&self) -> usize {
        self.schedule.len()
    }

    /// How many requests wait for a hello, with decided ones that are still in the queue.
    pub fn unmatched(&self) -> usize {
        self.unmatched.len()
    }

    /// The earliest request that waits for a hello.
    pub fn first_unmatched(&self) -> Option<i64> {
        self.unmatched.front().map(|first| first.request.time)
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

    /// Takes in a hello. `is_same` says of two rows whether they are sightings of one hello by different sensors.
    pub fn hello(&mut self, hello: Waiting, is_same: impl Fn(Row, Row) -> bool, out: &mut Outcomes) {
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
        let Waiting { time, seq, row, connection, .. } = hello;
        if self.connections[connection].hellos >= MAX_PER_KEY {
            out.evicted.push(hello.side());
            self.connections.done(connection);
            return;
        }
        let (mut later, mut earlier) = (NONE, self.connections[connection].latest);
        while earlier != NONE && (self.hellos[earlier as usize].time, self.hellos[earlier as usize].seq) > (time, seq) {
            (later, earlier) = (earlier, self.hellos[earlier as usize].earlier);
        }
        let fresh = Hello { time, seq, last: i64::MIN, row, connection, matches: 0, earlier };
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
        self.serve_unmatched(slot, out);
        self.connections.done(connection);
        while self.hellos() > self.rules.max_hellos {
            self.evict(time, out);
        }
    }

    /// Takes in a request. It is decided if a hello is known, or if none can be; otherwise it waits for one.
    pub fn request(&mut self, request: Waiting, out: &mut Outcomes) {
        if request.connection == UNKNOWN {
            return self.request_now(request, out);
        }
        if self.decide(&request, out) {
            return;
        }
        let number = self.first + self.unmatched.len() as u64;
        self.unmatched.push_back(Unmatched { request, next: NO_REQUEST, decided: false });
        let (first, last) = self.connections[request.connection].unmatched;
        let first = if first == NO_REQUEST { number } else { first };
        if let Some(last) = self.entry(last) {
            last.next = number;
        }
        self.connections[request.connection].unmatched = (first, number);
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
            let Some(first) = self.unmatched.front() else { return true };
            if first.request.time.saturating_add(self.rules.wait).min(END - 1) >= now {
                return true;
            }
            self.give_up_first(out);
        }
        self.unmatched.is_empty()
    }

    /// Decides the first of the requests that wait for a hello.
    pub fn give_up_first(&mut self, out: &mut Outcomes) {
        let Some(Unmatched { request, next, .. }) = self.unmatched.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        let chain = &mut self.connections[request.connection].unmatched;
        if chain.0 == number {
            *chain = if next == NO_REQUEST { (NO_REQUEST, NO_REQUEST) } else { (next, chain.1) };
        }
        self.leave_alone(&request, out);
        self.drop_decided();
    }

    /// Lets go of hellos that no request at or after `now` can match, looking at `limit` at most. Returns how many it
    /// looked at; fewer than `limit` were all.
    pub fn expire(&mut self, now: i64, limit: usize, out: &mut Outcomes) -> usize {
        for looked in 0..limit {
            let Some(due) = self.schedule.pop_before(now) else { return looked };
            if self.is_due(due, now) {
                self.let_go(due.hello, out);
            }
        }
        limit
    }

    fn let_go(&mut self, slot: u32, out: &mut Outcomes) {
        let (side, matches) = self.remove(slot);
        if matches > 0 {
            out.finished.push(side.row);
        } else {
            out.alone.push(side);
        }
    }

    /// Pushes out the hello that would expire first; `now` is the time of the row that needs its room. One that only a
    /// request which has begun by now can match leaves as if it had expired.
    fn evict(&mut self, now: i64, out: &mut Outcomes) {
        while let Some(due) = self.schedule.pop_before(END) {
            if !self.is_due(due, due.at.saturating_add(1)) {
                continue;
            }
            if self.hellos[due.hello as usize].alive_until(&self.rules) < now {
                out.expired_early += 1;
                self.let_go(due.hello, out);
            } else {
                let (side, _) = self.remove(due.hello);
                out.evicted.push(side);
            }
            return;
        }
    }

    /// Whether a hello expires before `now`; if it has been matched since it was scheduled, it is scheduled again.
    fn is_due(&mut self, due: Due, now: i64) -> bool {
        let at = self.hellos[due.hello as usize].held_until(&self.rules);
        if at >= now {
            self.schedule.push(Due { at, ..due });
        }
        at < now
    }

    /// Takes a hello, which is not scheduled any more, out of its connection. Returns it and how often it was matched.
    fn remove(&mut self, slot: u32) -> (Side, u32) {
        let hello = &self.hellos[slot as usize];
        let (side, matches, connection, earlier) = (hello.side(), hello.matches, hello.connection, hello.earlier);
        let later = self.chain(connection).find(|other| self.hellos[*other as usize].earlier == slot);
        match later {
            Some(later) => self.hellos[later as usize].earlier = earlier,
            None => self.connections[connection].latest = earlier,
        }
        self.connections[connection].hellos -= 1;
        self.connections.forget_if_empty(connection);
        self.free.push(slot);
        (side, matches)
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
        while let Some(at) = number.checked_sub(self.first).filter(|_| number != NO_REQUEST) {
            let Some(entry) = self.unmatched.get_mut(at as usize) else { break };
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
        self.connections[connection].unmatched =
            if number == NO_REQUEST { (NO_REQUEST, NO_REQUEST) } else { (number, last) };
        self.drop_decided();
    }

    fn drop_decided(&mut self) {
        while self.unmatched.front().is_some_and(|first| first.decided) {
            self.unmatched.pop_front();
            self.first += 1;
        }
    }

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

    fn entry(&mut self, number: u64) -> Option<&mut Unmatched> {
        let at = number.checked_sub(self.first).filter(|_| number != NO_REQUEST)?;
        self.unmatched.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
