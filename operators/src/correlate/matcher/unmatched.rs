//! Requests that wait for a hello after them: in the order of time, and chained by connection.

use std::collections::VecDeque;

use super::Waiting;
use crate::correlate::connections::NO_REQUEST;

/// The first and the last request of a connection's chain, by number, or [`NO_REQUEST`].
pub(super) type Chain = (u64, u64);

/// A request that waits for a hello after it.
pub(super) struct Unmatched {
    pub request: Waiting,
    /// The next of the same connection, or [`NO_REQUEST`].
    pub next: u64,
    /// Has been decided.
    pub decided: bool,
}

/// Requests in the order of time, each with a number; those decided go when they get to the front, which never is one of
/// them.
#[derive(Default)]
pub(super) struct Queue {
    requests: VecDeque<Unmatched>,
    /// The number of the first of them.
    first: u64,
}

impl Queue {
    /// How many requests there are, with decided ones.
    #[inline]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The first request.
    #[inline]
    pub fn first(&self) -> Option<&Waiting> {
        self.requests.front().map(|first| &first.request)
    }

    /// A request by its number.
    #[inline]
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Unmatched> {
        let at = number.checked_sub(self.first).filter(|_| number != NO_REQUEST)?;
        self.requests.get_mut(usize::try_from(at).ok()?)
    }

    /// Adds a request at the end, there and in the chain of its connection, which it returns.
    pub fn push(&mut self, request: Waiting, (first, last): Chain) -> Chain {
        let number = self.first + self.requests.len() as u64;
        self.requests.push_back(Unmatched { request, next: NO_REQUEST, decided: false });
        if let Some(last) = self.get_mut(last) {
            last.next = number;
        }
        (if first == NO_REQUEST { number } else { first }, number)
    }

    /// Takes out the first request, with its number.
    pub fn pop(&mut self) -> Option<(u64, Unmatched)> {
        let unmatched = self.requests.pop_front()?;
        let number = self.first;
        self.first += 1;
        Some((number, unmatched))
    }

    /// Takes out those at the front that have been decided.
    pub fn drop_decided(&mut self) {
        while self.requests.front().is_some_and(|first| first.decided) {
            self.requests.pop_front();
            self.first += 1;
        }
    }
}

/// What is left of a chain from one of its requests on.
#[inline]
pub(super) fn rest_of(first: u64, last: u64) -> Chain {
    if first == NO_REQUEST { (NO_REQUEST, NO_REQUEST) } else { (first, last) }
}
