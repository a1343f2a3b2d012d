//! ClientHellos in QUIC Initial packets, version 1 (RFC 9000, RFC 9001) and 2 (RFC 9369), the drafts 23 to 34 of version 1
//! and those of version 2.
//!
//! Initial packets are protected with keys that follow from the connection ID that the client chose first, so anyone
//! who sees the first packet can read them. Retry, 0-RTT, Handshake and short-header packets hold no hello and are
//! passed over.

mod attempt;
mod frames;
mod keys;
mod packet;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use super::contest::Rank;
use super::counters::Counters;
use super::hello::Arrival;
use super::limits::Limits;
use super::tls::ClientHello;

use self::attempt::{Attempt, Known};
use self::keys::Keys;
use self::packet::{Initial, Initials};
pub(crate) use self::packet::{is_initial, is_long};

/// Sets of keys of one client that are kept: one in the usual case, two after a Retry or another version.
const MAX_ATTEMPTS: usize = 8;

/// A client's datagram.
pub(crate) struct From<'a> {
    pub datagram: &'a [u8],
    /// The payload of its first Initial is in `scratch` already, from [`Connection::of`].
    pub opened: bool,
    pub rank: Rank,
    pub arrival: Arrival,
}

/// What is known of a hello beside its content.
pub(crate) struct Message {
    /// 1 for the answer to a HelloRetryRequest, or for another hello after a Retry or another version.
    pub index: u8,
    /// It is not the first one of its keys.
    is_second: bool,
    /// There was more than one version of its bytes.
    pub disputed: bool,
}

/// The Initial packets of one client.
#[derive(Debug)]
pub(crate) struct Connection {
    /// By the keys of their packets, the latest used first.
    attempts: Vec<Attempt>,
    /// What tells the hellos that are out from others: after a Retry the same one comes again.
    known: Vec<Known>,
    /// An attempt went before its hello was complete.
    lost: bool,
}

impl Connection {
    /// A connection whose first packet this may be: it can be opened with the keys that follow from it. The payload of
    /// the datagram's first Initial is then in `scratch`. Only that one is tried: a client's first packet comes first,
    /// and anyone can send datagrams full of others that cost as much to try.
    pub(crate) fn of(datagram: &[u8], scratch: &mut Vec<u8>) -> Option<Self> {
        let initial = Initials::of(datagram).next()?;
        let keys = Keys::of_client(initial.version, initial.dcid);
        let opened = keys.open(&initial, scratch);
        opened.then(|| Self { attempts: vec![Attempt::with(keys, &initial)], known: Vec::new(), lost: false })
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        let attempts: usize = self.attempts.iter().map(Attempt::held).sum();
        size_of::<Self>() + attempts + self.known.capacity() * size_of::<Known>()
    }

    /// Whether its hello is out, or will never come.
    pub(crate) fn is_over(&self) -> bool {
        self.attempts.iter().any(Attempt::is_over)
    }

    /// The server has answered: which version of a hello it took cannot change any more.
    ///
    /// Whether the hello that is out is what it answered to, and whether there is nothing else that it may have answered to.
    pub(crate) fn answered(&mut self) -> (bool, bool) {
        // A server acknowledges the first datagram of a hello that comes in two.
        let is_sure = self.attempts.iter().all(|attempt| !attempt.is_split);
        for attempt in &mut self.attempts {
            attempt.answered = true;
            if attempt.hellos > 0 && is_sure {
                (attempt.last, attempt.settled) = (None, true);
            }
        }
        (is_sure, self.attempts.len() == 1 || self.attempts.iter().all(Attempt::is_over))
    }

    /// Takes a datagram; `emit` gets hellos with the packet that completed each.
    pub(crate) fn datagram(
        &mut self,
        from: &From<'_>,
        limits: &Limits,
        counters: &mut Counters,
        scratch: &mut Vec<u8>,
        emit: &mut impl FnMut(&ClientHello<'_>, &Arrival, Message),
    ) {
        let (mut opened, mut may_be_other) = (from.opened, true);
        for initial in Initials::of(from.datagram) {
            counters.quic_initials += 1;
            if !std::mem::take(&mut opened) && !self.open(&initial, &mut may_be_other, scratch) {
                counters.quic_undecryptable += 1;
                continue;
            }
            let Self { attempts, known, lost } = self;
            let Some(attempt) = attempts.first_mut().filter(|attempt| !attempt.done) else { continue };
            attempt.frames(scratch, from, limits, counters);
            let (is_other, began_before) = (attempt.hellos == 0 && !attempt.began_before, attempt.began_before);
            let mut reused = 0;
            attempt.read(from, limits, counters, &mut |hello, arrival, new, message| {
                // The same hello after a Retry is no hello of its own, also where its content was adapted.
                let repeats = |old: &Known| old.digest == new.digest || began_before && old.random == new.random;
                let is_new = !known.iter().any(repeats);
                // On the same ports there is another connection, or another story: nothing shows which.
                let is_other = is_other && is_new && !known.is_empty();
                reused += u64::from(is_other);
                if message.is_second || message.disputed || is_new {
                    emit(hello, arrival, Message { disputed: message.disputed || *lost || is_other, ..message });
                }
                if is_new && known.len() < MAX_ATTEMPTS {
                    known.push(new);
                }
            });
            counters.ports_reused += reused;
        }
    }

    /// Opens a packet into `scratch`; its attempt is the first then. Other keys than before mean that the server sent a
    /// Retry or another version, that a new connection has begun on the same ports, or that the client tells two stories. To
    /// derive them costs as much as to open a packet several times over: it is tried for one packet of a datagram, then
    /// `may_be_other` is false.
    fn open(&mut self, initial: &Initial<'_>, may_be_other: &mut bool, scratch: &mut Vec<u8>) -> bool {
        let mut known = self.attempts.iter().map(|attempt| &attempt.keys);
        if let Some(at) = known.position(|keys| keys.version == initial.version && keys.open(initial, scratch)) {
            self.attempts[..=at].rotate_right(1);
            return true;
        }
        if !std::mem::take(may_be_other) {
            return false;
        }
        let keys = Keys::of_client(initial.version, initial.dcid);
        let opened = keys.open(initial, scratch);
        if opened {
            if self.attempts.len() >= MAX_ATTEMPTS {
                let over = self.attempts.iter().rposition(Attempt::is_over);
                self.lost |= over.is_none();
                // Not the first one: whoever makes up others hides nothing that came before.
                self.attempts.remove(over.unwrap_or(self.attempts.len() - 2));
            }
            let latest = self.attempts.first();
            let began_before = latest.is_some_and(|latest| latest.goes_on_with(initial));
            let mut attempt = Attempt::with(keys, initial);
            attempt.began_before = began_before;
            self.attempts.insert(0, attempt);
        }
        opened
    }
}
