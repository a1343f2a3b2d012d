//! Messages in a stream: with their length before them, or up to a line feed (RFC 6587, section 3.4).
//!
//! Each message tells by itself which of the two it is: `123 <` begins one with a length, as no other text does.

use memchr::memchr2;

/// The most digits of a length.
const MAX_DIGITS: usize = 9;

/// Takes messages out of the bytes of one connection. What it gives does not depend on how they are cut into reads.
#[derive(Debug)]
pub(super) struct Framing {
    buffer: Vec<u8>,
    /// The most of a message that is kept; of a longer one the first bytes are, one more than that.
    most: usize,
    /// Bytes of a message with a length that are still to be passed over.
    skip: usize,
    /// Inside a message without a length that was too long.
    skips_line: bool,
    /// No line feed before this.
    scanned: usize,
}

/// What comes next in the buffer.
enum Next {
    /// A message of so many bytes behind so many.
    Counted(usize, usize),
    /// A message up to a line feed.
    Line,
    /// More bytes are needed to tell.
    Unknown,
}

impl Framing {
    /// Of messages of at most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { buffer: Vec::new(), most, skip: 0, skips_line: false, scanned: 0 }
    }

    /// Takes in bytes, and gives each message that is complete. At most one message and `bytes` are kept.
    pub fn push(&mut self, bytes: &[u8], mut give: impl FnMut(&[u8])) {
        self.buffer.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = self.one(start, &mut give) {
            start = end;
        }
        self.buffer.drain(..start);
        self.scanned = self.scanned.saturating_sub(start);
    }

    /// The connection has ended: what is left is a message without its end.
    pub fn finish(&mut self, mut give: impl FnMut(&[u8])) {
        let rest = std::mem::take(&mut self.buffer);
        if rest.is_empty() || self.skip > 0 || self.skips_line {
            return;
        }
        let text = match next(&rest) {
            Next::Counted(digits, _) => &rest[digits..],
            Next::Line | Next::Unknown => &rest,
        };
        give(&text[..text.len().min(self.most + 1)]);
    }

    /// Takes one message that begins at `start`; where it ends. `None` if it is not complete.
    fn one(&mut self, start: usize, give: &mut impl FnMut(&[u8])) -> Option<usize> {
        let left = self.buffer.len() - start;
        if self.skip > 0 {
            let skipped = self.skip.min(left);
            self.skip -= skipped;
            return (skipped > 0).then_some(start + skipped);
        }
        if left == 0 {
            return None;
        }
        if self.skips_line {
            return Some(match memchr2(b'\n', 0, &self.buffer[start..]) {
                Some(at) => {
                    self.skips_line = false;
                    start + at + 1
                }
                None => self.buffer.len(),
            });
        }
        match next(&self.buffer[start..]) {
            Next::Unknown => None,
            Next::Counted(digits, length) => {
                let from = start + digits;
                let kept = length.min(self.most + 1);
                if self.buffer.len() < from + kept {
                    return None;
                }
                give(&self.buffer[from..from + kept]);
                self.skip = length - kept;
                Some(from + kept)
            }
            Next::Line => {
                let from = start.max(self.scanned);
                let found = memchr2(b'\n', 0, &self.buffer[from..]).map(|at| from + at);
                let length = found.unwrap_or(self.buffer.len()) - start;
                if let Some(end) = found {
                    give(&self.buffer[start..start + length.min(self.most + 1)]);
                    return Some(end + 1);
                }
                if length > self.most {
                    give(&self.buffer[start..start + self.most + 1]);
                    self.skips_line = true;
                    return Some(self.buffer.len());
                }
                self.scanned = self.buffer.len();
                None
            }
        }
    }
}

fn next(text: &[u8]) -> Next {
    if !matches!(text.first(), Some(b'1'..=b'9')) {
        return Next::Line;
    }
    let digits = text.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits > MAX_DIGITS {
        return Next::Line;
    }
    match (text.get(digits), text.get(digits + 1)) {
        (Some(b' '), Some(b'<')) => {
            let length = text[..digits].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            Next::Counted(digits + 1, length)
        }
        (None, _) | (Some(b' '), None) => Next::Unknown,
        _ => Next::Line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn messages(bytes: &[u8], cuts: usize, most: usize) -> Vec<String> {
        let (mut framing, mut out) = (Framing::new(most), Vec::new());
        let mut give = |message: &[u8]| out.push(String::from_utf8_lossy(message).into_owned());
        for part in bytes.chunks(cuts.max(1)) {
            framing.push(part, &mut give);
        }
        framing.finish(&mut give);
        out
    }

    #[test]
    fn both_kinds_of_frames_may_follow_each_other() {
        for cuts in [1, 2, 3, 7, 1000] {
            let text = b"10 <13>a b\ncd<13>line\n192.0.2.1 - -\n7 up\n5 <1>xy0123456789012 <x\n";
            let expected = ["<13>a b\ncd", "<13>line", "192.0.2.1 - -", "7 up", "<1>xy", "0123456789012 <x"];
            assert_eq!(messages(text, cuts, 100), expected, "{cuts}");
            assert_eq!(messages(b"<1>a\0<1>b\n<1>c", cuts, 100), ["<1>a", "<1>b", "<1>c"]);
            assert_eq!(messages(b"", cuts, 100), [""; 0]);
        }
    }

    #[test]
    fn of_a_longer_message_the_beginning_is_given_once_and_the_rest_is_passed_over() {
        for cuts in [1, 2, 3, 1000] {
            assert_eq!(messages(b"12 <1>abcdefgh\n<1>x\n6 <1>abc", cuts, 5), ["<1>abc", "<1>x", "<1>abc"]);
            assert_eq!(messages(b"abcdefghij\nabc\n", cuts, 5), ["abcdef", "abc"]);
            assert_eq!(messages(b"999999999 <1>abcdefgh", cuts, 5), ["<1>abc"]);
        }
    }

    #[test]
    fn little_is_kept_whatever_comes() {
        for text in [&[b'x'; 4096][..], &[b'1'; 4096], b"999999999 <"] {
            let (mut framing, mut given) = (Framing::new(100), 0);
            for _ in 0..1000 {
                framing.push(text, |_| given += 1);
                assert!(framing.buffer.len() <= 100 + 4096, "{}", framing.buffer.len());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(41), ..ProptestConfig::default() })]

        #[test]
        fn cuts_do_not_matter(text in "[12 <>a\n]{0,80}", cuts in 1_usize..20, most in 1_usize..12) {
            prop_assert_eq!(messages(text.as_bytes(), cuts, most), messages(text.as_bytes(), 1000, most));
        }

        #[test]
        fn framed_messages_come_back(sent in prop::collection::vec(("<[0-9]{1,3}>[a-z 0-9]{0,20}", any::<bool>()), 0..20), cuts in 1_usize..50) {
            let mut bytes = Vec::new();
            for (message, counted) in &sent {
                if *counted {
                    bytes.extend(format!("{} {message}", message.len()).bytes());
                } else {
                    bytes.extend(format!("{message}\n").bytes());
                }
            }
            let expected: Vec<&str> = sent.iter().map(|(message, _)| message.as_str()).collect();
            prop_assert_eq!(messages(&bytes, cuts, 100), expected);
        }
    }
}
