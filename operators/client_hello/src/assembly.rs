//! The client's bytes of one connection, put in order until a hello is complete.
//!
//! Where segments overlap, the bytes seen first win, whatever the later ones contain: a later copy with other bytes is
//! how a capture point is misled.

/// Memory that one out-of-order piece takes beside its bytes.
const PIECE_OVERHEAD: usize = size_of::<Piece>() + 16;

/// Bytes in order from a base sequence number, and pieces that came ahead of a gap. The base belongs to the connection
/// and is given to each call.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// What follows the base without a gap.
    data: Vec<u8>,
    /// Ordered, without overlaps; each begins after `data` ends unless the stream's start is unknown.
    pieces: Vec<Piece>,
    /// Segments that brought something.
    segments: usize,
    /// `data` is worth parsing when it is this long.
    need: usize,
}

#[derive(Debug)]
struct Piece {
    seq: u32,
    bytes: Box<[u8]>,
}

/// What a segment brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brought {
    /// Nothing that was not known.
    Nothing,
    /// Nothing, because all of it lies beyond the window.
    Beyond,
    /// Bytes ahead of a gap.
    Ahead,
    /// More bytes in order.
    InOrder,
}

impl Assembly {
    /// Starts with bytes in order from the base.
    pub(crate) fn starting_with(data: &[u8], need: usize) -> Self {
        Self { data: data.to_vec(), segments: 1, need, ..Self::default() }
    }

    /// Adds the part of `payload` that lies in the `window` bytes after `base`.
    pub(crate) fn insert(&mut self, base: u32, seq: u32, payload: &[u8], window: usize) -> Brought {
        let known = self.data.len();
        if distance(base, seq) >= window as i64 {
            return Brought::Beyond;
        }
        let Some((start, fresh)) = clip(distance(base, seq), payload, known as i64, window as i64) else {
            return Brought::Nothing;
        };
        if self.pieces.is_empty() && start == known as i64 {
            self.data.extend_from_slice(fresh);
        } else if !self.merge(base, start, fresh) {
            return Brought::Nothing;
        }
        self.segments += 1;
        self.absorb(base);
        if self.data.len() > known { Brought::InOrder } else { Brought::Ahead }
    }

    /// Adds `payload` while the start of the stream is unknown: anything within `window` bytes before or after `base`.
    pub(crate) fn hold(&mut self, base: u32, seq: u32, payload: &[u8], window: usize) -> Brought {
        match clip(distance(base, seq), payload, -(window as i64), window as i64) {
            Some((start, fresh)) if self.merge(base, start, fresh) => {
                self.segments += 1;
                Brought::Ahead
            }
            _ => Brought::Nothing,
        }
    }

    /// The bytes in order, if there are enough to be worth parsing.
    pub(crate) fn ready(&self) -> Option<&[u8]> {
        (self.data.len() >= self.need.max(1)).then_some(&self.data)
    }

    /// Drops `consumed` bytes, which may be more than there are, and moves on to `base` behind them.
    pub(crate) fn advance(&mut self, base: u32, consumed: usize, need: usize) {
        self.data.drain(..consumed.min(self.data.len()));
        self.need = need;
        self.absorb(base);
    }

    /// Whether `payload` holds other bytes than those known for the same places.
    pub(crate) fn contradicts(&self, base: u32, seq: u32, payload: &[u8]) -> bool {
        let start = distance(base, seq);
        let differs = |at: i64, known: &[u8]| {
            let (from, to) = (start.max(at), (start + payload.len() as i64).min(at + known.len() as i64));
            from < to
                && payload[(from - start) as usize..(to - start) as usize]
                    != known[(from - at) as usize..(to - at) as usize]
        };
        differs(0, &self.data) || self.pieces.iter().any(|piece| differs(distance(base, piece.seq), &piece.bytes))
    }

    /// The bytes in order.
    pub(crate) fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// How many bytes are in order.
    pub(crate) fn in_order(&self) -> usize {
        self.data.len()
    }

    /// Segments that brought something so far.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// Starts the count of segments again.
    pub(crate) fn reset_segments(&mut self) {
        self.segments = 0;
    }

    /// Memory held, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.data.capacity() + self.pieces.iter().map(|piece| piece.bytes.len() + PIECE_OVERHEAD).sum::<usize>()
    }

    /// Nothing is stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.pieces.is_empty()
    }

    /// Fills the gaps between the pieces with `bytes`, which start `start` bytes after `base`. False if nothing fitted.
    fn merge(&mut self, base: u32, mut start: i64, mut bytes: &[u8]) -> bool {
        let mut merged = Vec::with_capacity(self.pieces.len() + 1);
        let before = self.pieces.len();
        let piece = |(at, bytes): (i64, &[u8])| Piece { seq: base.wrapping_add(at as u32), bytes: bytes.into() };
        for known in std::mem::take(&mut self.pieces) {
            let at = distance(base, known.seq);
            let end = at + known.bytes.len() as i64;
            merged.extend(take(&mut start, &mut bytes, at).map(piece));
            take(&mut start, &mut bytes, end);
            merged.push(known);
        }
        merged.extend(take(&mut start, &mut bytes, i64::MAX).map(piece));
        self.pieces = merged;
        self.pieces.len() > before
    }

    /// Moves pieces that no gap separates any more to the bytes in order.
    fn absorb(&mut self, base: u32) {
        let mut absorbed = 0;
        for piece in &self.pieces {
            let known = self.data.len() as i64 - distance(base, piece.seq);
            if known < 0 {
                break;
            }
            self.data.extend_from_slice(piece.bytes.get(known as usize..).unwrap_or_default());
            absorbed += 1;
        }
        self.pieces.drain(..absorbed);
    }
}

/// How far `seq` lies after `base`, in sequence space (RFC 9293 section 3.4): wraps around.
pub(crate) fn distance(base: u32, seq: u32) -> i64 {
    i64::from(seq.wrapping_sub(base) as i32)
}

/// Takes what lies before `until` off the front of `bytes`, which starts at `start`.
fn take<'a>(start: &mut i64, bytes: &mut &'a [u8], until: i64) -> Option<(i64, &'a [u8])> {
    let len = until.saturating_sub(*start).max(0) as usize;
    let (head, tail) = bytes.split_at(bytes.len().min(len));
    let at = *start;
    *start += head.len() as i64;
    *bytes = tail;
    (!head.is_empty()).then_some((at, head))
}

/// The part of `payload`, which starts at `start`, between `from` and `to`, with its own start.
fn clip(start: i64, payload: &[u8], from: i64, to: i64) -> Option<(i64, &[u8])> {
    let end = (start + payload.len() as i64).min(to);
    let begin = start.max(from);
    (begin < end).then(|| (begin, &payload[(begin - start) as usize..(end - start) as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u32 = u32::MAX - 3; // so that every test wraps around

    fn insert(assembly: &mut Assembly, at: i32, bytes: &[u8]) -> Brought {
        assembly.insert(BASE, BASE.wrapping_add_signed(at), bytes, 20)
    }

    #[test]
    fn pieces_come_together_in_any_order() {
        let mut assembly = Assembly::default();
        assert_eq!(insert(&mut assembly, 6, b"gh"), Brought::Ahead);
        assert_eq!(insert(&mut assembly, 2, b"cd"), Brought::Ahead);
        assert_eq!(insert(&mut assembly, 2, b"cd"), Brought::Nothing);
        assert_eq!(insert(&mut assembly, 0, b"ab"), Brought::InOrder);
        assert_eq!(assembly.ready(), Some(&b"abcd"[..]));
        assert_eq!(insert(&mut assembly, 4, b"ef"), Brought::InOrder);
        assert_eq!(assembly.ready(), Some(&b"abcdefgh"[..]));
        assert_eq!(assembly.segments(), 4);
    }

    #[test]
    fn bytes_seen_first_win() {
        let mut assembly = Assembly::default();
        insert(&mut assembly, 2, b"cd");
        insert(&mut assembly, 6, b"gh");
        assert_eq!(insert(&mut assembly, 1, b"BCDEFGHI"), Brought::Ahead);
        insert(&mut assembly, -2, b"????ab");
        assert_eq!(assembly.ready(), Some(&b"?BcdEFghI"[..]));
    }

    #[test]
    fn the_window_bounds_what_is_kept() {
        let mut assembly = Assembly::default();
        assert_eq!(insert(&mut assembly, 20, b"x"), Brought::Beyond);
        assert_eq!(insert(&mut assembly, -1, b"x"), Brought::Nothing);
        insert(&mut assembly, 18, b"xyz");
        assert_eq!(assembly.held(), 2 + PIECE_OVERHEAD);
    }

    #[test]
    fn advancing_skips_bytes_that_have_not_come() {
        let mut assembly = Assembly::starting_with(b"abc", 9);
        assert_eq!(assembly.ready(), None);
        insert(&mut assembly, 6, b"ghi");
        assembly.advance(BASE.wrapping_add(7), 7, 0);
        assert_eq!(assembly.ready(), Some(&b"hi"[..]));
    }

    #[test]
    fn a_start_found_late_keeps_what_was_held() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.hold(BASE, BASE, b"cd", 10), Brought::Ahead);
        assert_eq!(assembly.ready(), None);
        let start = BASE.wrapping_sub(2);
        assert_eq!(assembly.insert(start, start, b"ab", 10), Brought::InOrder);
        assert_eq!(assembly.ready(), Some(&b"abcd"[..]));
    }
}
