//! What comes of hellos and requests.

use crate::correlate::store::Row;

/// A row and its event time in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::correlate) struct Side {
    pub row: Row,
    pub time: i64,
    /// When a request began; of a hello its time.
    pub begin: i64,
}

/// A row of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::correlate) enum Decision {
    /// A request with its hello, and the request's number on the connection, from 1.
    Matched { request: Side, hello: Side, keepalives: u32 },
    /// A request without a hello.
    Request { request: Side },
    /// A hello without a request.
    Hello { hello: Side },
}

/// What came of the rows that were taken in.
#[derive(Default)]
pub(in crate::correlate) struct Outcomes {
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
