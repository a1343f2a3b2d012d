//! Which version of a client's bytes its server took, and whether that is a hello.

use super::assembly::distance;
use super::connection::Connection;
use super::contest::{Contest, Order, Rank, end_without, without};
use super::fingerprint::Transport;
use super::flow::Stage;
use super::hello::{Arrival, describe};
use super::limits::Limits;
use super::prelude::{self, MAX_PRELUDE, Prelude};
use super::records::Walk;
use super::tls::{self, ClientHello, Outcome};

/// What pieces put together amount to.
enum First<'a> {
    /// A hello, where it begins and where it ends.
    Hello(ClientHello<'a>, usize, usize),
    /// It may become one behind so many bytes.
    More(usize),
    /// It is none.
    Never,
}

/// What became of a version.
enum Tried {
    /// Its hello has left.
    Left,
    /// It is the best one, and the server has not taken all of it.
    Early,
    /// It may become a hello.
    More,
    /// It is none.
    Never,
}

/// A hello within the pieces of a contest.
struct Found<'a> {
    hello: ClientHello<'a>,
    /// Where it is in the stream.
    begin: usize,
    end: usize,
    /// Nothing tells that the server took it rather than something else.
    ambiguous: bool,
    arrival: Arrival,
}

impl Connection<'_> {
    /// Decides a contest if that can be done now: by what the server has acknowledged, else by what there is.
    pub(crate) fn judge(&mut self, acked: Option<u32>) {
        let Some(contest) = self.flow.contest.take() else { return };
        if self.is_settled(&contest, acked) {
            return;
        }
        if acked.is_some_and(|acked| self.is_refuted(&contest, acked)) {
            return self.finish();
        }
        // What every receiver drops counts only where bytes are missing that the server has taken.
        let worst = if acked.is_some() { Rank::Dropped } else { Rank::Early };
        let likely = contest.orders().map(|order| (order, Rank::Doubtful));
        let unlikely = contest.orders().map(|order| (order, worst));
        let mut is_hopeless = true;
        for (order, worst) in likely.chain(unlikely) {
            match self.try_version(&contest, order, worst, acked) {
                Tried::Left => return,
                Tried::Early => break,
                Tried::More => is_hopeless = false,
                Tried::Never => {}
            }
        }
        if is_hopeless && acked.is_none() {
            return self.no_hello(contest.start);
        }
        self.flow.contest = Some(contest);
    }

    /// Looks for a hello in one version, with urgent bytes or without; it leaves if there is one.
    fn try_version(&mut self, contest: &Contest, order: Order, worst: Rank, acked: Option<u32>) -> Tried {
        let version = contest.version(order, worst);
        let mut tried = Tried::Never;
        for cut in contest.cuts(version.stream.len()) {
            let stream = without(&version.stream, &cut);
            // It is used while the connection is changed.
            let mut joined = std::mem::take(self.joined);
            match first(&stream, self.flow.skipped == 0, self.limits, &mut joined) {
                First::Hello(hello, begin, end) => {
                    let (begin, end) = (end_without(&cut, begin + 1) - 1, end_without(&cut, end));
                    let behind = contest.start.wrapping_add(end as u32);
                    if acked.is_some_and(|acked| distance(behind, acked) < 0) {
                        tried = Tried::Early;
                    } else if let Some(arrival) = version.completed(end) {
                        // Bytes of the SYN between others may be those of another version.
                        let is_mixed = acked.is_none() && worst >= Rank::Early && contest.has_likely();
                        let ambiguous =
                            self.flow.disputed || contest.is_open(end) || contest.is_urgent(end) || is_mixed;
                        let found = Found { hello, begin, end, ambiguous, arrival };
                        self.found(contest.start, &version.stream, &found);
                        tried = Tried::Left;
                    }
                }
                First::More(_) => tried = Tried::More,
                First::Never => {}
            }
            *self.joined = joined;
            if matches!(tried, Tried::Left | Tried::Early) {
                return tried;
            }
        }
        // The best version may still become whole, unless the server has taken more than it holds.
        let is_best = worst < Rank::Early && acked.is_some_and(|acked| contest.covers(&version, acked));
        if matches!(tried, Tried::More) && is_best { Tried::Early } else { tried }
    }

    /// The hello of a contest whose first byte has this sequence number leaves.
    fn found(&mut self, start: u32, stream: &[u8], found: &Found<'_>) {
        let Found { hello, begin, end, ambiguous, arrival } = found;
        let early_data = hello.offers_early_data();
        let hello = describe(self.flow, self.key, arrival, Transport::Tcp, 0, hello);
        self.leave(hello, start.wrapping_add(*begin as u32), &stream[*begin..*end], *ambiguous);
        (self.flow.stage, self.flow.base) = (Stage::Second, start.wrapping_add(*end as u32));
        (self.flow.early_data, self.flow.skipped) = (early_data, 0);
        // What follows may be the second hello.
        if let Some(rest) = stream.get(*end..).filter(|rest| !rest.is_empty()) {
            self.fresh(rest, arrival);
        }
    }

    /// Whether nothing is disputed, and all of it goes before a hello: that is not looked at again.
    fn is_settled(&mut self, contest: &Contest, acked: Option<u32>) -> bool {
        let version = contest.version(Order::Rank, Rank::Doubtful);
        let len = version.stream.len();
        let end = contest.start.wrapping_add(len as u32);
        if len == 0
            || contest.is_open(len)
            || contest.has_urgent()
            || !contest.ends_within(len)
            || acked.is_some_and(|acked| distance(end, acked) < 0)
        {
            return false;
        }
        let passed = match first(&version.stream, self.flow.skipped == 0, self.limits, self.joined) {
            First::More(passed) => passed,
            _ => return false,
        };
        if passed >= len {
            self.flow.base = contest.start.wrapping_add(passed as u32);
            self.flow.skipped += passed;
        }
        passed >= len
    }

    /// Whether what the server has taken cannot become a hello, whichever version that was.
    fn is_refuted(&mut self, contest: &Contest, acked: u32) -> bool {
        let len = usize::try_from(distance(contest.start, acked)).unwrap_or(0);
        let is_first = self.flow.skipped == 0;
        len > 0
            && contest.orders().all(|order| {
                let version = contest.version(order, Rank::Dropped);
                let Some(taken) = version.stream.get(..len) else { return false };
                contest.cuts(len).iter().all(|cut| {
                    let taken = without(taken, cut);
                    matches!(first(&taken, is_first, self.limits, self.joined), First::Never)
                })
            })
    }
}

/// Looks for a hello at the front of a stream, behind what may stand before it.
fn first<'a>(stream: &'a [u8], is_first: bool, limits: &Limits, joined: &'a mut Vec<u8>) -> First<'a> {
    let (starttls, max) = (limits.starttls, limits.max_hello_bytes);
    let mut at = 0;
    loop {
        // What goes before a hello may be longer than what has come.
        let rest = stream.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return First::More(at);
        }
        if tls::may_start(rest) {
            return match tls::client_hello(rest, joined, max) {
                Outcome::Hello(hello, end) => First::Hello(hello, at, stream.len().min(at + end)),
                Outcome::NeedMore(need) if need <= max => First::More(at),
                _ => First::Never,
            };
        }
        match prelude::judge(rest, &mut Walk::default(), is_first && at == 0, starttls) {
            Prelude::Skip(len) if at + len <= MAX_PRELUDE => at += len,
            Prelude::NeedMore(_) => return First::More(at),
            Prelude::Skip(_) | Prelude::NotOurs => return First::Never,
        }
    }
}
