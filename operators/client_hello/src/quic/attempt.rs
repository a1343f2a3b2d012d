//! What a client sends under one set of keys, up to its hellos.

use sha2::{Digest, Sha256};

use super::frames::{Frame, Frames};
use super::keys::Keys;
use super::packet::Initial;
use super::{From, Message};
use crate::assembly::Assembly;
use crate::contest::{self, Contest, Part, Rank};
use crate::counters::Counters;
use crate::hello::Arrival;
use crate::limits::Limits;
use crate::records::Walk;
use crate::tls::ClientHello;

/// Hellos of one connection: the first and the answer to a HelloRetryRequest.
const MAX_HELLOS: u8 = 2;
/// Bytes of a hello, and frames, that are kept once two of them differ: each datagram puts them together in several ways.
const MAX_DISPUTED: usize = 16 << 10;
const MAX_PIECES: usize = 64;
/// The longest connection ID (RFC 9000 section 17.2).
pub(super) const MAX_ID: usize = 20;
/// Offset of the random in a handshake message that is a ClientHello.
pub(super) const RANDOM: usize = 6;
/// A hello that is out, until the server has answered it.
#[derive(Debug)]
pub(super) struct Last {
    /// Offset in the CRYPTO stream.
    at: u32,
    bytes: Vec<u8>,
    arrival: Arrival,
}

/// What was sent under one set of keys.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) keys: Keys,
    /// The connection ID that the client gave itself, and its length.
    scid: ([u8; MAX_ID], u8),
    /// A hello of this connection is out that came before: the server sent a Retry, or another version.
    pub(super) began_before: bool,
    /// The server has sent something.
    pub(super) answered: bool,
    /// The CRYPTO stream behind the hellos that are out.
    stream: Assembly,
    /// In place of `stream` once two versions of its bytes have come.
    contest: Option<Box<Contest>>,
    /// Offset in the CRYPTO stream of the first byte not dealt with.
    base: u32,
    pub(super) hellos: u8,
    pub(super) last: Option<Box<Last>>,
    /// Its frames came in more than one datagram before a hello was complete.
    pub(super) is_split: bool,
    /// The datagram of its first frame, by [`Arrival::order`].
    first: Option<u64>,
    /// Another version of what is out is not looked at any more.
    pub(super) settled: bool,
    pub(super) done: bool,
}

impl Attempt {
    pub(super) fn with(keys: Keys, initial: &Initial<'_>) -> Self {
        let (stream, scid) = (Assembly::default(), id_of(initial.scid));
        let (began_before, answered, is_split, settled, done) = (false, false, false, false, false);
        let (contest, last, first, base, hellos) = (None, None, None, 0, 0);
        Self { keys, scid, began_before, answered, stream, contest, base, hellos, last, is_split, first, settled, done }
    }

    /// Whether a packet with other keys is of the same connection. After a Retry it has the token, and the client may not
    /// give itself another ID (RFC 9000 section 17.2.5.2); after a Version Negotiation it has another version. Neither
    /// holds for a new connection on the same ports; one with a token of an earlier connection has an ID of its own.
    pub(super) fn goes_on_with(&self, initial: &Initial<'_>) -> bool {
        let goes_on = initial.version != self.keys.version || initial.has_token && id_of(initial.scid) == self.scid;
        self.answered && goes_on && (self.began_before || self.hellos > 0)
    }

    pub(super) fn held(&self) -> usize {
        size_of::<Self>()
            + self.stream.held()
            + self.contest.as_ref().map_or(0, |contest| contest.held())
            + self.last.as_ref().map_or(0, |last| size_of::<Last>() + last.bytes.len())
    }

    pub(super) fn is_over(&self) -> bool {
        self.done || self.hellos > 0
    }

    pub(super) fn frames(&mut self, payload: &[u8], from: &From<'_>, limits: &Limits, counters: &mut Counters) {
        for frame in Frames(payload) {
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
        let last = self.last.as_ref().is_some_and(|last| contest::differs(last.at, &last.bytes, offset, data));
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
    pub(super) fn read(
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
pub(super) struct Known {
    pub(super) random: [u8; 32],
    /// SHA-256 of the message.
    pub(super) digest: [u8; 32],
}

impl Known {
    fn of(message: &[u8]) -> Self {
        let random = message.get(RANDOM..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        Self { random, digest: Sha256::digest(message).into() }
    }
}
