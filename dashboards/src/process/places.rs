//! Who is next: queries wait in one line, from which each query process takes the one of the client that has used least.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::pool::Job;
use crate::error::Error;

/// Queries that wait, of all clients.
const MAX_WAITING: usize = 128;

/// Queries that wait, of one client.
const MAX_OF_ONE: usize = 16;

/// After this long half of what a client has used is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// Clients whose use is remembered.
const MAX_CLIENTS: usize = 4096;

/// How often a process that waits is told what it may forget.
const IDLE: Duration = Duration::from_secs(1);

/// Whose query it is. An IPv6 address stands for its /64, which is what one client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(Option<IpAddr>);

impl Client {
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        }))
    }
}

#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<State>,
    more: Condvar,
    /// Queries of one client that run at the same time: never all places, if there are several.
    of_one: usize,
}

#[derive(Debug, Default)]
struct State {
    /// With their numbers, in the order in which they came.
    waiting: Vec<(u64, Job)>,
    /// The number of the one that came last.
    came: u64,
    running: HashMap<Client, usize>,
    used: HashMap<Client, Used>,
    closed: bool,
}

/// Time that a client's queries took, of which half is forgotten every [`HALF_LIFE`].
#[derive(Clone, Copy, Debug)]
struct Used {
    seconds: f64,
    at: Instant,
}

impl Used {
    fn now(self, now: Instant) -> f64 {
        let lives = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.seconds * 0.5_f64.powf(lives)
    }
}

impl Places {
    pub fn new(places: usize) -> Self {
        Self { state: Mutex::default(), more: Condvar::new(), of_one: places.saturating_sub(1).max(1) }
    }

    /// Puts a query in the line, or turns it away if the line is too long; its number there.
    pub fn wait(&self, job: Job) -> u64 {
        let mut state = self.state.lock();
        state.waiting.retain(|(_, job)| !job.is_over());
        state.came += 1;
        let id = state.came;
        let own = state.waiting.iter().filter(|(_, other)| other.client == job.client).count();
        if state.closed || own >= MAX_OF_ONE || state.waiting.len() >= MAX_WAITING {
            drop(state);
            job.refuse(Error::Busy(Duration::ZERO));
            return id;
        }
        state.waiting.push((id, job));
        drop(state);
        self.more.notify_all();
        id
    }

    /// Takes a query out of the line; whether it was still there.
    pub fn give_up(&self, id: u64) -> bool {
        self.state.lock().waiting.extract_if(.., |(waiting, _)| *waiting == id).count() > 0
    }

    /// The next query; waits for it. `None` when there will be no more. `idle` is called while nothing is to do.
    pub fn next(&self, mut idle: impl FnMut()) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            state.waiting.retain(|(_, job)| !job.is_over());
            if let Some(at) = state.fairest(Instant::now(), self.of_one) {
                let (_, job) = state.waiting.remove(at);
                *state.running.entry(job.client).or_default() += 1;
                return Some(job);
            }
            if self.more.wait_for(&mut state, IDLE).timed_out() && state.waiting.is_empty() {
                MutexGuard::unlocked(&mut state, &mut idle);
            }
        }
    }

    /// A query has ended, after this time.
    pub fn done(&self, client: Client, took: Duration) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(running) = state.running.get_mut(&client) {
            *running -= 1;
            if *running == 0 {
                state.running.remove(&client);
            }
        }
        if state.used.len() >= MAX_CLIENTS {
            state.used.retain(|_, used| used.now(now) > 0.01);
        }
        if state.used.len() < MAX_CLIENTS || state.used.contains_key(&client) {
            let used = state.used.entry(client).or_insert(Used { seconds: 0.0, at: now });
            *used = Used { seconds: used.now(now) + took.as_secs_f64(), at: now };
        }
        drop(state);
        self.more.notify_all();
    }

    /// Queries that run, and queries that wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running.values().sum(), state.waiting.len())
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.more.notify_all();
    }
}

impl State {
    /// Of those that may run, the query whose client has used least, and of equal ones the one that came first.
    fn fairest(&self, now: Instant, of_one: usize) -> Option<usize> {
        let runs = |job: &Job| self.running.get(&job.client).copied().unwrap_or_default();
        let used = |job: &Job| self.used.get(&job.client).map_or(0.0, |used| used.now(now));
        let may_run = self.waiting.iter().enumerate().filter(|(_, (_, job))| runs(job) < of_one);
        may_run.min_by(|(_, (_, a)), (_, (_, b))| used(a).total_cmp(&used(b))).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Statement;
    use tokio::sync::oneshot::Receiver;

    type Reply = Receiver<Result<super::super::pool::Answer, Error>>;

    fn client(n: u8) -> Client {
        Client::of(Some(IpAddr::from([192, 0, 2, n])))
    }

    fn job(n: u8, sql: &str) -> (Job, Reply) {
        let (reply, receiver) = tokio::sync::oneshot::channel();
        let output = crate::output::Output::asked(None, None).expect("the default");
        let statement = Statement { sql: sql.to_owned(), parameters: Default::default(), output };
        (Job::new(client(n), statement, reply), receiver)
    }

    #[test]
    fn the_client_that_has_used_least_is_next_and_nobody_takes_all_places() {
        let places = Places::new(2);
        places.done(client(1), Duration::from_secs(30));
        let jobs = [job(1, "a"), job(1, "b"), job(2, "c"), job(2, "d"), job(3, "e")];
        let (jobs, replies): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        for job in jobs {
            places.wait(job);
        }
        let next = || places.next(|| ()).map(|job| job.statement.sql).expect("there are some");
        // `d` waits for `c`, whose client has one place, which is all but one.
        assert_eq!([next(), next(), next()], ["c", "e", "a"]);
        assert_eq!(places.counts(), (3, 2));
        places.done(client(1), Duration::ZERO);
        places.done(client(2), Duration::from_secs(1));
        let next = || places.next(|| ()).map(|job| job.statement.sql).expect("there are some");
        assert_eq!([next(), next()], ["d", "b"]);
        let (late, _reply) = job(1, "late");
        let late = places.wait(late);
        assert_eq!([places.give_up(late), places.give_up(late)], [true, false]);
        drop(replies);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_who_has_gone_is_left_out() {
        let places = Places::new(2);
        let (gone, reply) = job(9, "gone");
        places.wait(gone);
        drop(reply);
        let mut replies: Vec<Reply> = Vec::new();
        for _ in 0..=MAX_OF_ONE {
            let (job, reply) = job(1, "x");
            places.wait(job);
            replies.push(reply);
        }
        let last = replies.pop().map(|mut reply| reply.try_recv());
        assert!(matches!(last, Some(Ok(Err(Error::Busy(_))))), "one too many");
        assert_eq!(places.next(|| ()).map(|job| job.statement.sql).as_deref(), Some("x"));
        places.close();
        assert!(places.next(|| ()).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| Client::of(text.parse().ok());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
