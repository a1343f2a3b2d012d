use super::*;

const S: i64 = 1_000_000_000;

fn rules() -> Rules {
    Rules {
        window: 10 * S,
        keepalive_ttl: 120 * S,
        max_age: 3600 * S,
        longest: 0,
        tolerance: S / 2,
        wait: S / 2,
        one_to_one: false,
        max_hellos: 1_000_000,
    }
}

/// A matcher, and what came of the rows so far: a request's row is its time, as far as that fits.
struct Bench {
    matcher: Matcher,
    out: Outcomes,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { matcher: Matcher::new(rules, S / 10), out: Outcomes::default() }
    }

    fn waiting(&mut self, port: u16, time: i64, row: u32) -> Waiting {
        let key = Key { src: 1, src_port: port, ..Key::default() };
        let connection = self.matcher.arrive(&key, self.matcher.hash(&key));
        Waiting { time, seq: row.into(), begin: time, row, connection }
    }

    fn hello(&mut self, port: u16, time: i64, row: u32) {
        let hello = self.waiting(port, time, row);
        self.matcher.expire(time, usize::MAX, &mut self.out);
        self.matcher.hello(hello, 1, |_, _| false, &mut self.out);
    }

    /// Takes in a request. Returns the hello's row and the keep-alive number of the last request that was matched since.
    fn request(&mut self, port: u16, time: i64) -> Option<(u32, u32)> {
        let request = self.waiting(port, time, 0);
        self.matcher.request(request, &mut self.out);
        self.last()
    }

    fn last(&mut self) -> Option<(u32, u32)> {
        let mut matched = self.out.decisions.drain(..).filter_map(|decision| match decision {
            Decision::Matched { hello, keepalives, .. } => Some((hello.row, keepalives)),
            _ => None,
        });
        matched.next_back()
    }

    fn evicted(&mut self) -> Vec<u32> {
        self.out.evicted.drain(..).map(|side| side.row).collect()
    }
}

#[test]
fn a_match_keeps_the_connection_alive_and_counts() {
    let mut bench = Bench::new(rules());
    bench.hello(1, 0, 7);
    assert_eq!(bench.request(1, 10 * S), Some((7, 1)), "at the window's edge");
    assert_eq!(bench.request(1, 130 * S), Some((7, 2)), "at the edge of the ttl after the match");
    assert_eq!(bench.request(1, 250 * S + 1), None);
    assert_eq!(bench.request(2, 5 * S), None, "another port");
}

#[test]
fn the_first_request_must_come_within_the_window() {
    let mut bench = Bench::new(rules());
    bench.hello(1, 0, 7);
    assert_eq!(bench.request(1, 10 * S + 1), None);
}

#[test]
fn no_hello_is_older_than_the_greatest_age() {
    let mut bench = Bench::new(Rules { max_age: 200 * S, ..rules() });
    bench.hello(1, 0, 7);
    for (time, expected) in [(9, Some((7, 1))), (120, Some((7, 2))), (200, Some((7, 3))), (201, None)] {
        assert_eq!(bench.request(1, time * S), expected, "{time}");
    }
    bench.matcher.expire(201 * S, 10, &mut bench.out);
    assert_eq!(bench.matcher.hellos(), 0);
}

#[test]
fn a_reused_port_gives_the_latest_hello_not_after_the_request() {
    let mut bench = Bench::new(rules());
    bench.hello(1, 0, 1);
    assert_eq!(bench.request(1, 5 * S), Some((1, 1)));
    bench.hello(1, 8 * S, 2);
    assert_eq!(bench.request(1, 8 * S), Some((2, 1)));
    assert_eq!(bench.request(1, 9 * S), Some((2, 2)));
}

#[test]
fn a_hello_just_after_the_request_matches_if_no_earlier_one_does() {
    let mut bench = Bench::new(rules());
    assert_eq!(bench.request(1, 5 * S - S / 2 - 1), None);
    assert_eq!(bench.request(1, 5 * S - S / 2), None);
    assert_eq!(bench.request(1, 5 * S - 1), None);
    bench.hello(1, 5 * S, 1);
    let Some(Decision::Matched { request, .. }) = bench.out.decisions.first() else { panic!("a match") };
    assert_eq!(request.time, 5 * S - S / 2);
    assert_eq!(bench.last(), Some((1, 2)), "the first of them was too early");
    assert_eq!(bench.matcher.first_unmatched(), Some(5 * S - S / 2 - 1));
    assert!(bench.matcher.give_up(6 * S, 10, &mut bench.out));
    assert_eq!((bench.out.decisions.len(), bench.matcher.unmatched()), (1, 0));
}

#[test]
fn a_request_of_ten_minutes_has_the_hello_of_its_begin() {
    let mut bench = Bench::new(Rules { longest: 600 * S, ..rules() });
    let slow = |bench: &mut Bench, begin: i64, end: i64| {
        let request = Waiting { begin, ..bench.waiting(1, end, 0) };
        bench.matcher.expire(end, usize::MAX, &mut bench.out);
        bench.matcher.request(request, &mut bench.out);
        bench.last()
    };
    bench.hello(1, 0, 7);
    bench.hello(1, 599 * S, 8);
    assert_eq!(slow(&mut bench, 5 * S, 605 * S), Some((7, 1)), "not that of the connection after it");
    assert_eq!(slow(&mut bench, 606 * S, 606 * S), Some((8, 1)));
    assert_eq!(bench.request(1, 725 * S), Some((8, 2)), "the ttl counts from the end");
    assert_eq!(bench.out.after_expiry, 0);
    assert_eq!(bench.request(1, 900 * S), None, "too long after the last");
    bench.matcher.give_up(901 * S, 10, &mut bench.out);
    assert_eq!(bench.out.after_expiry, 1);
    bench.hello(2, 1000 * S, 9);
    bench.matcher.expire(1700 * S, usize::MAX, &mut bench.out);
    assert_eq!(bench.matcher.hellos(), 0, "held no longer than the longest request needs it");
}

#[test]
fn a_bound_lets_go_of_hellos_for_slow_requests_without_calling_it_an_eviction() {
    let mut bench = Bench::new(Rules { longest: 600 * S, max_hellos: 1, ..rules() });
    bench.hello(1, 0, 1);
    bench.hello(2, 11 * S, 2);
    assert_eq!((bench.out.expired_early, bench.evicted()), (1, Vec::new()));
    bench.hello(3, 12 * S, 3);
    assert_eq!((bench.out.expired_early, bench.evicted()), (1, vec![2]), "that one was alive");
}

#[test]
fn a_request_leaves_when_its_wait_is_over_and_not_before() {
    let mut bench = Bench::new(Rules { wait: 2 * S, ..rules() });
    assert_eq!(bench.request(1, 5 * S), None);
    bench.matcher.give_up(7 * S, 10, &mut bench.out);
    assert!(bench.out.decisions.is_empty(), "a hello at exactly this time may still come");
    bench.hello(1, 6 * S, 1);
    assert!(bench.out.decisions.is_empty(), "beyond the tolerance");
    bench.matcher.give_up(7 * S + 1, 10, &mut bench.out);
    assert_eq!(bench.out.decisions, [Decision::Request { request: Side { row: 0, time: 5 * S, begin: 5 * S } }]);
}

#[test]
fn one_to_one_uses_a_hello_once() {
    let mut bench = Bench::new(Rules { one_to_one: true, ..rules() });
    bench.hello(1, 0, 1);
    assert_eq!(bench.request(1, S), Some((1, 1)));
    assert_eq!(bench.request(1, 2 * S), None);
    assert_eq!(bench.request(1, 2 * S), None);
    bench.hello(1, 2 * S + 1, 2);
    assert_eq!(bench.last(), Some((2, 1)));
    assert_eq!(bench.matcher.unmatched(), 1, "the second request waits on");
    bench.hello(1, 2 * S + 2, 3);
    assert_eq!(bench.last(), Some((3, 1)));
    assert_eq!(bench.matcher.unmatched(), 0);
}

#[test]
fn a_hello_that_another_sensor_has_seen_too_counts_once() {
    let mut bench = Bench::new(rules());
    for (time, row) in [(0, 1), (SIGHTINGS_WITHIN, 2), (SIGHTINGS_WITHIN + 1, 3)] {
        let hello = bench.waiting(1, time, row);
        bench.matcher.hello(hello, 1, |_, _| true, &mut bench.out);
    }
    assert_eq!((bench.out.sightings, bench.out.finished.as_slice()), (1, [2].as_slice()));
    assert_eq!(bench.matcher.hellos(), 2, "the third came too long after the first");
}

#[test]
fn expiry_is_capped_and_leaves_what_can_still_match() {
    let mut bench = Bench::new(rules());
    for port in 0..100 {
        bench.hello(port, i64::from(port), u32::from(port));
    }
    assert!(bench.request(50, S).is_some());
    let Bench { mut matcher, mut out } = bench;
    assert_eq!(matcher.expire(11 * S, 60, &mut out), 60);
    assert_eq!(out.alone.len(), 59, "one of the sixty was matched and is looked at again later");
    assert_eq!(matcher.expire(11 * S, 1000, &mut out), 40);
    assert_eq!((out.alone.len(), matcher.hellos()), (99, 1));
    matcher.expire(122 * S, 1000, &mut out);
    assert_eq!((out.finished.as_slice(), matcher.hellos()), ([50].as_slice(), 0));
    assert_eq!(matcher.connections.len(), 0, "no connection is left");
}

#[test]
fn a_long_hello_counts_for_several() {
    let mut bench = Bench::new(Rules { max_hellos: 10, ..rules() });
    for (port, units) in [(1, 4), (2, 5), (3, 8), (4, 100), (5, 1)] {
        let hello = bench.waiting(port, i64::from(port) * S, u32::from(port));
        bench.matcher.hello(hello, units, |_, _| false, &mut bench.out);
        assert!(bench.matcher.units() <= 10);
    }
    let evicted: Vec<u32> = bench.out.evicted.iter().map(|side| side.row).collect();
    assert_eq!((evicted.as_slice(), bench.matcher.hellos(), bench.matcher.units()), ([1, 2, 3, 4].as_slice(), 1, 1));
}

#[test]
fn eviction_takes_the_hello_that_expires_first() {
    let mut bench = Bench::new(Rules { max_hellos: 2, ..rules() });
    bench.hello(1, S, 1);
    bench.hello(2, 2 * S, 2);
    assert!(bench.request(1, 3 * S).is_some());
    bench.hello(3, 4 * S, 3);
    assert_eq!(bench.evicted(), [2], "the first was matched and lives longer");
    bench.hello(4, 13 * S, 4);
    assert_eq!(bench.evicted(), [3]);
    bench.hello(5, 200 * S, 5);
    assert!(bench.evicted().is_empty(), "the others had expired");
    assert_eq!(bench.matcher.hellos(), 1);
}

#[test]
fn a_key_holds_a_bounded_number_of_hellos() {
    let mut bench = Bench::new(rules());
    for n in 0..10_000 {
        bench.hello(1, i64::from(n) * S / 100, n);
    }
    assert_eq!(bench.matcher.hellos(), MAX_PER_KEY as usize);
    assert_eq!(bench.evicted().len() + bench.out.alone.len() + bench.matcher.hellos(), 10_000);
    assert_eq!(bench.matcher.hellos.len(), MAX_PER_KEY as usize, "slots are used again");
}

#[test]
fn a_request_that_does_not_say_its_connection_is_an_orphan_at_once() {
    let mut bench = Bench::new(rules());
    bench.hello(0, 0, 1);
    let unknown = |row, time| Waiting { time, seq: u64::from(row), begin: time, row, connection: UNKNOWN };
    bench.matcher.hello(unknown(2, S), 1, |_, _| true, &mut bench.out);
    bench.matcher.look_ahead(&[unknown(3, S)]);
    bench.matcher.request(unknown(3, S), &mut bench.out);
    bench.matcher.request_now(unknown(4, S), &mut bench.out);
    let orphans = [3, 4].map(|row| Decision::Request { request: Side { row, time: S, begin: S } });
    assert_eq!((&bench.out.decisions[..], bench.out.without_port), (&orphans[..], 2));
    assert_eq!((bench.out.alone.len(), bench.matcher.unmatched(), bench.matcher.hellos()), (1, 0, 1));
    bench.matcher.turn_away(&unknown(5, S));
    assert_eq!(bench.request(0, 2 * S), Some((1, 1)), "a port that is 0 is a port");
}
