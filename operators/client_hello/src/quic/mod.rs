//! ClientHellos in QUIC Initial packets, version 1 (RFC 9000, RFC 9001) and 2 (RFC 9369), the drafts 23 to 34 of version 1
//! and those of version 2.
//!
//! Initial packets are protected with keys that follow from the connection ID that the client chose first, so anyone
//! who sees the first packet can read them. Retry, 0-RTT, Handshake and short-header packets hold no hello and are
//! passed over.

mod frames;
mod keys;
mod packet;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};

use super::assembly::Assembly;
use super::contest::{Contest, Part, Rank};
use super::counters::Counters;
use super::extractor::Limits;
use super::hello::Arrival;
use super::records::Walk;
use super::tls::ClientHello;

use self::frames::Frame;
use self::keys::Keys;
use self::packet::{Initial, Initials};
pub(crate) use self::packet::{is_initial, is_long};

/// Hellos of one connection: the first and the answer to a HelloRetryRequest.
const MAX_HELLOS: u8 = 2;
/// Bytes of a hello, and frames, that are kept once two of them differ: each datagram puts them together in several ways.
const MAX_DISPUTED: usize = 16 << 10;
const MAX_PIECES: usize = 64;
/// The longest connection ID (RFC 9000 section 17.2).
const MAX_ID: usize = 20;
/// Offset of the random in a handshake message that is a ClientHello.
const RANDOM: usize = 6;
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
            self.attempts.insert(0, Attempt { began_before, ..Attempt::with(keys, initial) });
        }
        opened
    }
}

/// A hello that is out, until the server has answered it.
#[derive(Debug)]
struct Last {
    /// Offset in the CRYPTO stream.
    at: u32,
    bytes: Vec<u8>,
    arrival: Arrival,
}

/// What was sent under one set of keys.
#[derive(Debug)]
struct Attempt {
    keys: Keys,
    /// The connection ID that the client gave itself, and its length.
    scid: ([u8; MAX_ID], u8),
    /// A hello of this connection is out that came before: the server sent a Retry, or another version.
    began_before: bool,
    /// The server has sent something.
    answered: bool,
    /// The CRYPTO stream behind the hellos that are out.
    stream: Assembly,
    /// In place of `stream` once two versions of its bytes have come.
    contest: Option<Box<Contest>>,
    /// Offset in the CRYPTO stream of the first byte not dealt with.
    base: u32,
    hellos: u8,
    last: Option<Box<Last>>,
    /// Its frames came in more than one datagram before a hello was complete.
    is_split: bool,
    /// The datagram of its first frame, by [`Arrival::order`].
    first: Option<u64>,
    /// Another version of what is out is not looked at any more.
    settled: bool,
    done: bool,
}

impl Attempt {
    fn with(keys: Keys, initial: &Initial<'_>) -> Self {
        let (stream, scid) = (Assembly::default(), id_of(initial.scid));
        let (began_before, answered, is_split, settled, done) = (false, false, false, false, false);
        let (contest, last, first, base, hellos) = (None, None, None, 0, 0);
        Self { keys, scid, began_before, answered, stream, contest, base, hellos, last, is_split, first, settled, done }
    }

    /// Whether a packet with other keys is of the same connection. After a Retry it has the token, and the client may not
    /// give itself another ID (RFC 9000 section 17.2.5.2); after a Version Negotiation it has another version. Neither
    /// holds for a new connection on the same ports; one with a token of an earlier connection has an ID of its own.
    fn goes_on_with(&self, initial: &Initial<'_>) -> bool {
        let goes_on = initial.version != self.keys.version || initial.has_token && id_of(initial.scid) == self.scid;
        self.answered && goes_on && (self.began_before || self.hellos > 0)
    }

    fn held(&self) -> usize {
        size_of::<Self>()
            + self.stream.held()
            + self.contest.as_ref().map_or(0, |contest| contest.held())
            + self.last.as_ref().map_or(0, |last| size_of::<Last>() + last.bytes.len())
    }

    fn is_over(&self) -> bool {
        self.done || self.hellos > 0
    }

    fn frames(&mut self, payload: &[u8], from: &From<'_>, limits: &Limits, counters: &mut Counters) {
        for frame in frames::Frames(payload) {
            let Frame::Crypto { offset, data } = frame else { continue };
            let Ok(offset) = u32::try_from(offset) else { continue };
            let first = *self.first.get_or_insert(from.arrival.order);
            self.is_split |= self.hellos == 0 && first != from.arrival.order;
            let differs = self.contest.is_none() && self.differs(offset, data);
            counters.overlap_conflicts += u64::from(differs);
            // Those that were not sent alike are kept apart, in case the server drops one of them.
            let is_alike = self.stream.latest.is_none_or(|latest| latest.group == from.arrival.group);
            let is_odd = self.hellos == 0 && (!is_alike || from.rank != Rank::Trusted);
            if self.contest.is_none() && (differs || is_odd) && !self.settled {
                self.dispute(limits, from);
            }
            let within = match &mut self.contest {
                Some(contest) => contest.add(Part {
                    at: offset,
                    rank: from.rank,
                    bytes: data.to_vec(),
                    arrival: from.arrival,
                    is_whole: false,
                }),
                None => {
                    self.stream.insert(self.base, offset, data, limits.max_hello_bytes);
                    self.stream.latest = Some(from.arrival);
                    self.stream.segments() < limits.max_segments
                }
            };
            // For each frame: a datagram put together from fragments has room for 13,000 of them.
            if !within {
                counters.segment_exceeded_count += 1;
                if self.contest.is_none() {
                    return self.finish();
                }
                // Whoever floods hides nothing that comes whole.
                (self.stream, self.contest, self.settled) = (Assembly::default(), None, false);
            }
        }
    }

    /// Whether a frame holds other bytes than those known.
    fn differs(&self, offset: u32, data: &[u8]) -> bool {
        let last = self.last.as_ref().is_some_and(|last| super::contest::differs(last.at, &last.bytes, offset, data));
        last || self.stream.contradicts(self.base, offset, data)
    }

    /// From here on the frames of the first hello are kept as they come.
    fn dispute(&mut self, limits: &Limits, from: &From<'_>) {
        self.settled = true;
        let start = self.last.as_ref().map_or(self.base, |last| last.at);
        let mut contest = Contest::limited(start, limits.max_hello_bytes.min(MAX_DISPUTED), MAX_PIECES);
        if let Some(last) = self.last.take() {
            let Last { at, bytes, arrival } = *last;
            contest.add(Part::known(at, bytes, arrival));
        }
        let stream = std::mem::take(&mut self.stream);
        let arrival = stream.latest.unwrap_or(from.arrival);
        contest.add_known(stream.into_parts(self.base), arrival);
        (self.base, self.hellos, self.contest) = (start, 0, Some(Box::new(contest)));
    }

    /// Reads the messages that are complete; `emit` gets hellos with their randoms.
    fn read(
        &mut self,
        from: &From<'_>,
        limits: &Limits,
        counters: &mut Counters,
        emit: &mut impl FnMut(&ClientHello<'_>, &Arrival, Known, Message),
    ) {
        if let Some(contest) = self.contest.take() {
            return self.judge(contest, limits, emit);
        }
        while let Some(data) = self.stream.ready() {
            let (hello, len) = match message(data, limits.max_hello_bytes) {
                Read::Hello(hello, len) => (hello, len),
                Read::More => return,
                read => {
                    self.count(&read, counters);
                    // It may be there to hide a hello.
                    if self.hellos > 0 || self.answered || self.settled {
                        return self.finish();
                    }
                    return self.dispute(limits, from);
                }
            };
            emit(&hello, &from.arrival, Known::of(&data[..len]), self.message(false));
            if self.hellos == 0 {
                let last = Last { at: self.base, bytes: data[..len].to_vec(), arrival: from.arrival };
                self.last = Some(Box::new(last));
            }
            self.hellos += 1;
            if self.hellos == MAX_HELLOS {
                if self.answered {
                    self.finish();
                }
                return;
            }
            self.base = self.base.wrapping_add(len as u32);
            self.stream.advance(self.base, len, 0, Walk::default());
            self.stream.reset_segments();
        }
    }

    /// Looks for a hello in the versions of its bytes.
    fn judge(
        &mut self,
        contest: Box<Contest>,
        limits: &Limits,
        emit: &mut impl FnMut(&ClientHello<'_>, &Arrival, Known, Message),
    ) {
        for order in contest.orders() {
            let version = contest.version(order, Rank::Doubtful);
            let Read::Hello(hello, len) = message(&version.stream, limits.max_hello_bytes) else { continue };
            let Some(arrival) = version.completed(len) else { continue };
            emit(
                &hello,
                &arrival,
                Known::of(&version.stream[..len]),
                self.message(contest.is_open(len) || !contest.is_alike()),
            );
            (self.hellos, self.base) = (1, contest.start.wrapping_add(len as u32));
            return;
        }
        self.contest = Some(contest);
    }

    fn message(&self, disputed: bool) -> Message {
        let is_second = self.hellos > 0;
        Message { index: u8::from(is_second || self.began_before), is_second, disputed }
    }

    fn count(&self, read: &Read<'_>, counters: &mut Counters) {
        *match read {
            Read::TooLong => &mut counters.buffer_exceeded_count,
            Read::Other if self.hellos > 0 => return,
            _ => &mut counters.malformed_hellos,
        } += 1;
    }

    fn finish(&mut self) {
        self.done = true;
        (self.stream, self.contest) = (Assembly::default(), None);
    }
}

/// What a stream of handshake messages begins with.
enum Read<'a> {
    /// A hello, and where its message ends.
    Hello(ClientHello<'a>, usize),
    More,
    /// A hello that is longer than allowed.
    TooLong,
    /// A hello that cannot be parsed.
    Broken,
    /// Another message.
    Other,
}

fn message(data: &[u8], max: usize) -> Read<'_> {
    let [kind, a, b, c, ..] = *data else { return Read::More };
    let len = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
    if kind != 1 {
        return Read::Other;
    }
    if len > max {
        return Read::TooLong;
    }
    match data.get(4..len).map(ClientHello::parse) {
        Some(Ok(hello)) => Read::Hello(hello, len),
        Some(Err(_)) => Read::Broken,
        None => Read::More,
    }
}

fn id_of(id: &[u8]) -> ([u8; MAX_ID], u8) {
    let mut bytes = [0; MAX_ID];
    let len = id.len().min(MAX_ID);
    bytes[..len].copy_from_slice(&id[..len]);
    (bytes, len as u8)
}

/// What tells a hello from others.
#[derive(Debug)]
struct Known {
    random: [u8; 32],
    /// SHA-256 of the message.
    digest: [u8; 32],
}

impl Known {
    fn of(message: &[u8]) -> Self {
        let random = message.get(RANDOM..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        Self { random, digest: Sha256::digest(message).into() }
    }
}
