//! Bytes of which a client has sent more than one version, or that its server may have dropped.
//!
//! What counts is what the server took. Segments that it certainly took, or that nobody contradicts, never come here.
//! The others are kept as they came until the server's acknowledgement, or time, tells what to make of them.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::assembly::distance;
use super::hello::Arrival;

/// Pieces that are kept of one connection.
const MAX_PARTS: usize = 128;

/// Pieces that may come for one contest, those thrown away included: each costs work.
const MAX_TAKEN: usize = 512;

/// Urgent bytes that are remembered of one contest.
const MAX_URGENT: usize = 4;

/// How likely it is that the receiver took a piece, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Nothing speaks against it.
    Trusted,
    /// Something differs from the sender's other packets, as it does where a packet was made to be dropped.
    Doubtful,
    /// It came with the SYN, without a cookie: few servers take it. It counts where nobody else has sent its bytes.
    Early,
    /// Every receiver drops it. It counts only where its bytes are acknowledged and nobody else has sent them.
    Dropped,
}

/// A piece as it came.
#[derive(Debug)]
pub(crate) struct Part {
    /// Sequence number, or offset, of the first byte.
    pub at: u32,
    pub rank: Rank,
    pub bytes: Vec<u8>,
    pub arrival: Arrival,
    /// It is one segment, which a receiver takes as a whole or not at all.
    pub is_whole: bool,
}

impl Part {
    /// What was put together before the bytes were disputed.
    pub(crate) fn known(at: u32, bytes: Vec<u8>, arrival: Arrival) -> Self {
        Self { at, rank: Rank::Trusted, bytes, arrival, is_whole: false }
    }

    fn end(&self) -> u32 {
        self.at.wrapping_add(self.bytes.len() as u32)
    }

    fn contradicts(&self, other: &Self) -> bool {
        differs(self.at, &self.bytes, other.at, &other.bytes)
    }
}

/// A way to put the pieces together: which of them go before others where they overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// By rank, then as they came.
    Rank,
    /// Those that were sent alike, then by rank.
    Group(u64),
    /// The longest first.
    Longest,
    /// The latest first.
    Latest,
    /// One piece, then by rank.
    Piece(usize),
}

/// The pieces of one connection from where its bytes are disputed.
#[derive(Debug)]
pub(crate) struct Contest {
    /// Sequence number of the first byte that matters.
    pub start: u32,
    /// Names the entry of the queue that ends the wait.
    pub number: u64,
    parts: Vec<Part>,
    /// Bytes of all parts.
    bytes: usize,
    taken: usize,
    most: usize,
    /// Where the first piece was that had to go though the server may have taken it: bytes from the start.
    lost: Option<i64>,
    /// Greatest number of bytes.
    window: usize,
    /// Sequence numbers of bytes that the receiver may have taken out of the stream as urgent, as they were named.
    urgent: Vec<u32>,
}

/// Pieces put together.
pub(crate) struct Version {
    pub stream: Vec<u8>,
    /// For each piece that brought bytes: how many are in order with it, and when it came.
    pieces: Vec<(usize, Arrival)>,
}

impl Version {
    /// The packet that completed the first `len` bytes.
    pub(crate) fn completed(&self, len: usize) -> Option<Arrival> {
        let needed = self.pieces.iter().filter(|(at, _)| *at < len).map(|(_, arrival)| *arrival);
        needed.max_by_key(|arrival| arrival.order)
    }
}

impl Contest {
    pub(crate) fn new(start: u32, window: usize, number: u64) -> Self {
        Self {
            start,
            number,
            parts: Vec::new(),
            bytes: 0,
            taken: 0,
            most: MAX_TAKEN,
            lost: None,
            window,
            urgent: Vec::new(),
        }
    }

    /// Whether these bytes are other ones than those of a piece.
    pub(crate) fn differs(&self, seq: u32, bytes: &[u8]) -> bool {
        self.parts.iter().any(|part| differs(part.at, &part.bytes, seq, bytes))
    }

    /// One that ends with nothing but the number of its pieces.
    pub(crate) fn limited(start: u32, window: usize, most: usize) -> Self {
        Self { most, ..Self::new(start, window, 0) }
    }

    /// Takes a piece. False if there were too many: the contest is given up.
    pub(crate) fn add(&mut self, part: Part) -> bool {
        let ahead = distance(self.start, part.at);
        let end = ahead + part.bytes.len() as i64;
        if ahead >= self.window as i64 || end <= 0 || part.bytes.is_empty() {
            return true;
        }
        self.taken += 1;
        let same = |known: &&Part| (known.at, known.rank) == (part.at, part.rank) && known.bytes == part.bytes;
        if self.parts.iter().any(|known| same(&known)) {
            return self.taken < self.most;
        }
        self.bytes += part.bytes.len();
        self.parts.push(part);
        self.fit();
        self.taken < self.most
    }

    /// Notes that a byte is urgent. Of many the first and the latest stay: a receiver takes out at least the latest, and whoever
    /// makes up others does not hide the first.
    pub(crate) fn mark(&mut self, urgent: u32) {
        let ahead = distance(self.start, urgent);
        if !(0..self.window as i64).contains(&ahead) || self.urgent.contains(&urgent) {
            return;
        }
        self.taken += 1;
        if self.urgent.len() >= MAX_URGENT {
            self.urgent.remove(MAX_URGENT / 2);
            self.lost = Some(self.lost.map_or(0, |lost| lost.min(0)));
        }
        self.urgent.push(urgent);
    }

    /// Which bytes of the first `len` the receiver may have taken out, the likeliest first: where in the stream they are.
    pub(crate) fn cuts(&self, len: usize) -> Vec<Vec<usize>> {
        let place = |urgent: &u32| usize::try_from(distance(self.start, *urgent)).ok();
        let mut places: Vec<usize> = self.urgent.iter().filter_map(place).filter(|place| *place < len).collect();
        let latest = places.last().copied();
        places.sort_unstable();
        let singles =
            places.iter().filter(|place| places.len() > 1 && Some(**place) != latest).map(|place| vec![*place]);
        let mut cuts: Vec<Vec<usize>> = singles.collect();
        if places.len() > 1 {
            cuts.insert(0, latest.into_iter().collect());
        }
        if !places.is_empty() {
            cuts.insert(0, places);
        }
        cuts.push(Vec::new());
        cuts
    }

    /// Whether a byte is urgent that may have come, or is to come.
    pub(crate) fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Whether one of the first `len` bytes is urgent.
    pub(crate) fn is_urgent(&self, len: usize) -> bool {
        self.urgent.iter().any(|urgent| (0..len as i64).contains(&distance(self.start, *urgent)))
    }

    /// Takes what was put together before, in its order: the first pieces, which a hello needs most.
    pub(crate) fn add_known(&mut self, parts: impl IntoIterator<Item = (u32, Vec<u8>)>, arrival: Arrival) {
        let mut parts = parts.into_iter();
        for (at, bytes) in parts.by_ref().take(MAX_PARTS) {
            self.add(Part::known(at, bytes, arrival));
        }
        if let Some((at, _)) = parts.next() {
            let at = distance(self.start, at);
            self.lost = Some(self.lost.map_or(at, |lost| lost.min(at)));
        }
    }

    /// Lets pieces go until the rest is within the bounds: first those that were hardly taken, so that whoever floods with
    /// them hides nothing, then those furthest ahead, which the first hello needs least; of equals the least likely.
    fn fit(&mut self) {
        while self.parts.len() > MAX_PARTS || self.bytes > self.window {
            let worth = |part: &Part| (part.rank >= Rank::Early, distance(self.start, part.at), part.rank);
            let least = self.parts.iter().map(worth).max();
            let Some(at) = self.parts.iter().position(|part| Some(worth(part)) == least) else { break };
            let gone = self.parts.remove(at);
            self.bytes -= gone.bytes.len();
            if gone.rank < Rank::Early {
                let at = distance(self.start, gone.at);
                self.lost = Some(self.lost.map_or(at, |lost| lost.min(at)));
            }
        }
    }

    /// The server has just acknowledged everything before `acked` and nothing behind. A segment that goes on behind that,
    /// and contradicts one that ends before, had not been taken: at most what is behind may still be. What is before stays
    /// for bytes that others repeated and that were not kept twice.
    pub(crate) fn acknowledged(&mut self, acked: u32) {
        let ends = |part: &Part| distance(part.end(), acked) >= 0;
        let is_refuted = |part: &Part| {
            part.is_whole
                && distance(part.at, acked) > 0
                && !ends(part)
                && self.parts.iter().any(|other| ends(other) && other.contradicts(part))
        };
        let refuted: Vec<bool> = self.parts.iter().map(is_refuted).collect();
        let mut tails = Vec::new();
        for (part, _) in self.parts.iter_mut().zip(refuted).filter(|(_, is_refuted)| *is_refuted) {
            let bytes = part.bytes.split_off(distance(part.at, acked) as usize);
            tails.push(Part { at: acked, bytes, ..*part });
            part.rank = Rank::Dropped;
        }
        self.parts.append(&mut tails);
        self.fit();
    }

    /// Forgets pieces of this rank; whether there are others.
    pub(crate) fn forget(&mut self, rank: Rank) -> bool {
        self.parts.retain(|part| part.rank != rank);
        self.bytes = self.parts.iter().map(|part| part.bytes.len()).sum();
        !self.parts.is_empty()
    }

    /// Whether no piece goes on behind the first `len` bytes.
    pub(crate) fn ends_within(&self, len: usize) -> bool {
        self.parts.iter().all(|part| distance(self.start, part.end()) <= len as i64)
    }

    /// Whether all pieces were sent alike.
    pub(crate) fn is_alike(&self) -> bool {
        let how = |part: &Part| (part.rank, part.arrival.group);
        self.parts.windows(2).all(|pair| how(&pair[0]) == how(&pair[1]))
    }

    /// Whether there are pieces that the server may have taken.
    pub(crate) fn has_likely(&self) -> bool {
        self.parts.iter().any(|part| part.rank < Rank::Early)
    }

    /// Whether pieces that the server may have taken contradict each other, or one of the first `len` bytes had to go.
    pub(crate) fn is_open(&self, len: usize) -> bool {
        let possible: Vec<&Part> = self.parts.iter().filter(|part| part.rank < Rank::Early).collect();
        self.lost.is_some_and(|lost| lost < len as i64)
            || possible.iter().enumerate().any(|(at, part)| possible[..at].iter().any(|other| other.contradicts(part)))
    }

    /// The ways to put the pieces together, the best first.
    pub(crate) fn orders(&self) -> impl Iterator<Item = Order> + use<> {
        const MAX_GROUPS: usize = 8;
        const MAX_FIRST: usize = 8;
        let mut groups: Vec<u64> = Vec::new();
        for part in &self.parts {
            if groups.len() < MAX_GROUPS && !groups.contains(&part.arrival.group) {
                groups.push(part.arrival.group);
            }
        }
        let groups = groups.into_iter().map(Order::Group);
        // Of three versions sent alike the one in the middle is none of these.
        let is_disputed = |part: &Part| self.parts.iter().any(|other| other.contradicts(part));
        let disputed = self.parts.iter().enumerate().filter(|(_, part)| is_disputed(part)).map(|(at, _)| at);
        let pieces: Vec<Order> = disputed.take(MAX_FIRST).map(Order::Piece).collect();
        let pieces = if pieces.len() > 2 { pieces } else { Vec::new() };
        [Order::Rank].into_iter().chain(groups).chain([Order::Longest, Order::Latest]).chain(pieces)
    }

    /// The pieces up to a rank put together.
    pub(crate) fn version(&self, order: Order, worst: Rank) -> Version {
        let mut parts: Vec<(usize, &Part)> = self.parts.iter().enumerate().collect();
        parts.retain(|(_, part)| part.rank <= worst);
        match order {
            Order::Rank => parts.sort_by_key(|(_, part)| part.rank),
            Order::Group(group) => parts.sort_by_key(|(_, part)| (part.arrival.group != group, part.rank)),
            Order::Longest => parts.sort_by_key(|(_, part)| Reverse(part.bytes.len())),
            Order::Latest => parts.reverse(),
            Order::Piece(piece) => parts.sort_by_key(|(at, part)| (*at != piece, part.rank)),
        }
        let mut parts: Vec<&Part> = parts.into_iter().map(|(_, part)| part).collect();
        // What is not likely to have been taken fills gaps and no more.
        parts.sort_by_key(|part| part.rank.max(Rank::Doubtful));
        // Where each piece begins in the stream, and what of it is behind the start.
        let place = |part: &Part| {
            let ahead = distance(self.start, part.at);
            let skipped = part.bytes.len().min(usize::try_from(-ahead).unwrap_or(0));
            (usize::try_from(ahead).unwrap_or(0), skipped)
        };
        let ends = parts.iter().map(|part| place(part).0 + part.bytes.len() - place(part).1);
        let end = ends.max().unwrap_or(0).min(self.window);
        let (mut stream, mut is_known) = (vec![0; end], vec![false; end]);
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            let (from, skipped) = place(part);
            let mut brings = false;
            for (at, byte) in (from..end).zip(&part.bytes[skipped..]) {
                if !is_known[at] {
                    (stream[at], is_known[at], brings) = (*byte, true, true);
                }
            }
            if brings {
                pieces.push((from, part.arrival));
            }
        }
        stream.truncate(is_known.iter().take_while(|is_known| **is_known).count());
        Version { stream, pieces }
    }

    /// Whether a version holds all bytes before `acked`.
    pub(crate) fn covers(&self, version: &Version, acked: u32) -> bool {
        distance(self.start.wrapping_add(version.stream.len() as u32), acked) <= 0
    }

    /// Memory held, in bytes.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<Part>() + self.bytes + self.urgent.capacity() * 4
    }
}

/// What is left of a stream without the bytes at these places, which ascend.
pub(crate) fn without<'a>(stream: &'a [u8], places: &[usize]) -> Cow<'a, [u8]> {
    if places.is_empty() {
        return Cow::Borrowed(stream);
    }
    let is_left = |(at, _): &(usize, &u8)| !places.contains(at);
    stream.iter().enumerate().filter(is_left).map(|(_, byte)| *byte).collect()
}

/// Where in a stream the first `len` bytes end of what is left without the bytes at these places.
pub(crate) fn end_without(places: &[usize], len: usize) -> usize {
    places.iter().fold(len, |end, place| end + usize::from(*place < end))
}

/// Whether `payload` from `seq` on holds other bytes than `known` from `from` on.
pub(crate) fn differs(from: u32, known: &[u8], seq: u32, payload: &[u8]) -> bool {
    let ahead = distance(from, seq);
    let (known, payload) = match usize::try_from(ahead) {
        Ok(ahead) => (known.get(ahead..), Some(payload)),
        Err(_) => (Some(known), payload.get(ahead.unsigned_abs() as usize..)),
    };
    known.zip(payload).is_some_and(|(known, payload)| {
        let len = known.len().min(payload.len());
        known[..len] != payload[..len]
    })
}
