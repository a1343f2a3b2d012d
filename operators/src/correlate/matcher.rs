//! Which hello belongs to which request: the rules, without Arrow and without the dataflow.
//!
//! A hello is alive from its own time for `window`, and after each match for `keepalive_ttl` from that match. A request
//! is given the latest hello of its key that is alive and not after it; failing that, the earliest that follows it by
//! at most `tolerance` (the two sensors' clocks, and a log that notes the second in which a request began, may differ).
//! Requests are decided in the order of event time, so the outcome does not depend on the order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ahash::RandomState;
use hashbrown::HashMap;

use super::store::RowRef;

/// Identifies a connection's client side, or both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// Source address as 128 bits; IPv4 is mapped into IPv6.
    pub src: u128,
    /// Destination address, or 0 if it is not part of the key.
    pub dst: u128,
    /// Source port.
    pub src_port: u16,
    /// Destination port, or 0 if it is not part of the key.
    pub dst_port: u16,
}

/// The rules' parameters; times in ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub window: i64,
    pub keepalive_ttl: i64,
    pub tolerance: i64,
    pub one_to_one: bool,
}

/// A hello that may still be matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hello {
    pub time: i64,
    pub seq: u64,
    pub row: RowRef,
    /// Time of the last match.
    last: Option<i64>,
    /// How many requests have matched.
    matches: u32,
}

impl Hello {
    fn alive_until(&self, rules: &Rules) -> i64 {
        let first = self.time.saturating_add(rules.window);
        self.last.map_or(first, |last| first.max(last.saturating_add(rules.keepalive_ttl)))
    }

    /// Whether any request has matched.
    pub fn is_matched(&self) -> bool {
        self.matches > 0
    }
}

/// The hello that a request is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub row: RowRef,
    pub time: i64,
    /// 1 for the first request on the connection.
    pub keepalives: u32,
}

/// The hellos of one key, by time and seq.
struct Held {
    hellos: Vec<Hello>,
    /// When to look at them again: not after the first of them expires.
    due: i64,
}

/// The hellos of one worker.
pub(super) struct Matcher {
    rules: Rules,
    hellos: HashMap<Key, Held, RandomState>,
    /// When to look at a key again. Only the entry with the key's own `due` counts, so that a key costs one look at a
    /// time however many hellos it gets.
    expiry: BinaryHeap<Reverse<(i64, Key)>>,
    len: usize,
}

impl Matcher {
    pub fn new(rules: Rules) -> Self {
        Self { rules, hellos: HashMap::default(), expiry: BinaryHeap::new(), len: 0 }
    }

    /// How many hellos are held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes in a hello.
    pub fn insert(&mut self, key: Key, time: i64, seq: u64, row: RowRef) {
        let hello = Hello { time, seq, row, last: None, matches: 0 };
        let due = hello.alive_until(&self.rules);
        let held = self.hellos.entry(key).or_insert(Held { hellos: Vec::new(), due: i64::MAX });
        if due < held.due {
            held.due = due;
            self.expiry.push(Reverse((due, key)));
        }
        let at = held.hellos.partition_point(|other| (other.time, other.seq) < (time, seq));
        held.hellos.insert(at, hello);
        self.len += 1;
    }

    /// Decides a request. Requests of one key must come in the order of their time.
    pub fn decide(&mut self, key: Key, time: i64) -> Option<Match> {
        let rules = self.rules;
        let hellos = &mut self.hellos.get_mut(&key)?.hellos;
        let usable = |h: &Hello| h.alive_until(&rules) >= time && !(rules.one_to_one && h.is_matched());
        let after = hellos.partition_point(|h| h.time <= time);
        let found = hellos[..after].iter().rposition(usable).or_else(|| {
            let near = hellos[after..].iter().position(|h| h.time <= time.saturating_add(rules.tolerance) && usable(h));
            near.map(|at| after + at)
        })?;
        let hello = &mut hellos[found];
        hello.last = Some(hello.last.map_or(time, |last| last.max(time)));
        hello.matches = hello.matches.saturating_add(1);
        Some(Match { row: hello.row, time: hello.time, keepalives: hello.matches })
    }

    /// Hands over at most `limit` hellos that no request at or after `now` can match. Returns whether that was all.
    pub fn expire(&mut self, now: i64, mut limit: usize, mut expired: impl FnMut(Hello)) -> bool {
        while let Some(&Reverse((due, key))) = self.expiry.peek() {
            if due >= now {
                return true;
            }
            if limit == 0 {
                return false;
            }
            limit -= 1;
            self.expiry.pop();
            self.sweep(due, key, now, &mut expired);
        }
        true
    }

    /// Hands over the hello that would expire first.
    pub fn evict(&mut self) -> Option<Hello> {
        let rules = self.rules;
        while let Some(Reverse((due, key))) = self.expiry.pop() {
            let Some(held) = self.hellos.get_mut(&key).filter(|held| held.due == due) else { continue };
            let first = held.hellos.iter().enumerate().map(|(at, h)| (h.alive_until(&rules), at)).min();
            let Some((until, at)) = first else { continue };
            if until > due {
                // Matched since: its turn comes later.
                held.due = until;
                self.expiry.push(Reverse((until, key)));
                continue;
            }
            let gone = held.hellos.remove(at);
            self.len -= 1;
            self.reschedule(key);
            return Some(gone);
        }
        None
    }

    /// All rows that are held, for moving them together.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut RowRef> {
        self.hellos.values_mut().flat_map(|held| &mut held.hellos).map(|hello| &mut hello.row)
    }

    fn sweep(&mut self, due: i64, key: Key, now: i64, expired: &mut impl FnMut(Hello)) {
        let rules = self.rules;
        let Some(held) = self.hellos.get_mut(&key).filter(|held| held.due == due) else { return };
        let before = held.hellos.len();
        held.hellos.retain(|hello| {
            let keep = hello.alive_until(&rules) >= now;
            if !keep {
                expired(*hello);
            }
            keep
        });
        self.len -= before - held.hellos.len();
        self.reschedule(key);
    }

    /// Notes when to look at a key again, or forgets it if it holds nothing.
    fn reschedule(&mut self, key: Key) {
        let rules = self.rules;
        let Some(held) = self.hellos.get_mut(&key) else { return };
        match held.hellos.iter().map(|hello| hello.alive_until(&rules)).min() {
            Some(next) => {
                held.due = next;
                self.expiry.push(Reverse((next, key)));
            }
            None => {
                self.hellos.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn rules() -> Rules {
        Rules { window: 10 * S, keepalive_ttl: 120 * S, tolerance: S / 2, one_to_one: false }
    }

    fn key(port: u16) -> Key {
        Key { src: 1, src_port: port, ..Key::default() }
    }

    fn row(n: u32) -> RowRef {
        RowRef { batch: 0, row: n }
    }

    fn decide(matcher: &mut Matcher, port: u16, time: i64) -> Option<(u32, u32)> {
        matcher.decide(key(port), time).map(|m| (m.row.row, m.keepalives))
    }

    #[test]
    fn a_match_keeps_the_connection_alive_and_counts() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 0, 0, row(7));
        assert_eq!(decide(&mut matcher, 1, 10 * S), Some((7, 1)), "at the window's edge");
        assert_eq!(decide(&mut matcher, 1, 130 * S), Some((7, 2)), "at the edge of the ttl after the match");
        assert_eq!(decide(&mut matcher, 1, 250 * S + 1), None);
        assert_eq!(decide(&mut matcher, 2, 5 * S), None, "another port");
    }

    #[test]
    fn the_first_request_must_come_within_the_window() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 0, 0, row(7));
        assert_eq!(decide(&mut matcher, 1, 10 * S + 1), None);
    }

    #[test]
    fn a_reused_port_gives_the_latest_hello_not_after_the_request() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 8 * S, 9, row(2));
        matcher.insert(key(1), 0, 0, row(1));
        assert_eq!(decide(&mut matcher, 1, 5 * S), Some((1, 1)));
        assert_eq!(decide(&mut matcher, 1, 8 * S), Some((2, 1)));
        assert_eq!(decide(&mut matcher, 1, 9 * S), Some((2, 2)));
    }

    #[test]
    fn a_hello_just_after_the_request_matches_if_no_earlier_one_does() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 5 * S, 0, row(1));
        assert_eq!(decide(&mut matcher, 1, 5 * S - S / 2 - 1), None);
        assert_eq!(decide(&mut matcher, 1, 5 * S - S / 2), Some((1, 1)));
    }

    #[test]
    fn one_to_one_uses_a_hello_once() {
        let mut matcher = Matcher::new(Rules { one_to_one: true, ..rules() });
        matcher.insert(key(1), 0, 0, row(1));
        assert_eq!(decide(&mut matcher, 1, S), Some((1, 1)));
        assert_eq!(decide(&mut matcher, 1, 2 * S), None);
    }

    #[test]
    fn expiry_is_capped_and_leaves_what_can_still_match() {
        let mut matcher = Matcher::new(rules());
        for port in 0..100 {
            matcher.insert(key(port), i64::from(port), 0, row(u32::from(port)));
        }
        assert!(matcher.decide(key(50), S).is_some());
        let mut gone = 0;
        assert!(!matcher.expire(11 * S, 60, |_| gone += 1), "more is due than the cap");
        assert_eq!(gone, 59, "one of the sixty was matched and is looked at again later");
        assert!(matcher.expire(11 * S, 1000, |_| gone += 1));
        assert_eq!((gone, matcher.len()), (99, 1));
        assert!(matcher.expire(122 * S, 1000, |hello| assert!(hello.is_matched())));
        assert_eq!(matcher.len(), 0);
    }

    #[test]
    fn eviction_takes_the_hello_that_expires_first() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 2 * S, 0, row(1));
        matcher.insert(key(2), S, 0, row(2));
        assert_eq!(matcher.evict().map(|h| h.row), Some(row(2)));
        assert_eq!(matcher.len(), 1);
    }

    #[test]
    fn a_matched_hello_outlives_an_unmatched_one_in_eviction() {
        let mut matcher = Matcher::new(rules());
        matcher.insert(key(1), 0, 0, row(1));
        matcher.insert(key(2), 5 * S, 0, row(2));
        assert!(matcher.decide(key(1), 9 * S).is_some());
        assert_eq!(matcher.evict().map(|h| h.row), Some(row(2)));
    }

    #[test]
    fn a_key_that_never_empties_has_one_entry_in_the_schedule() {
        let mut matcher = Matcher::new(rules());
        for n in 0..10_000 {
            matcher.insert(key(1), i64::from(n) * S / 100, 0, row(n));
            matcher.expire(i64::from(n) * S / 100, 100, |_| {});
        }
        assert_eq!((matcher.len(), matcher.expiry.len()), (1_001, 1));
    }
}
