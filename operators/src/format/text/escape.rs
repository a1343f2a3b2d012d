//! How servers write the bytes of clients that would break a line, and what they were.

use std::borrow::Cow;

/// How a server writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Escape {
    /// As it came.
    None,
    /// A backslash before a quote, a backslash or a letter that stands for a control character, and `\xHH`: Apache, and nginx,
    /// which writes `\xHH` alone.
    Backslash,
    /// As in a string of JSON: nginx with `escape=json`.
    Json,
    /// A backslash before `"`, `\` and `]` (RFC 5424): HAProxy with `+E`.
    Quoted,
    /// `#HH`: HAProxy's request line.
    Hash,
    /// `#HH`, also for `{`, `|` and `}`: HAProxy's captured headers.
    HashHeader,
}

impl Escape {
    /// Whether a value never has this byte, unless it is escaped.
    pub(super) fn excludes(self, byte: u8) -> bool {
        match self {
            Self::None => false,
            Self::Backslash | Self::Json => byte == b'"' || byte < b' ',
            Self::Quoted => byte == b'"',
            Self::Hash => byte == b'"' || !(b' '..0x7f).contains(&byte),
            Self::HashHeader => matches!(byte, b'"' | b'{' | b'|' | b'}') || !(b' '..0x7f).contains(&byte),
        }
    }

    /// Whether the byte after this one belongs to it.
    pub(super) fn leads(self, byte: u8) -> bool {
        byte == b'\\' && matches!(self, Self::Backslash | Self::Json | Self::Quoted)
    }

    /// What the bytes of a value stand for.
    pub(super) fn decode(self, raw: &[u8]) -> Cow<'_, [u8]> {
        let (lead, one): (u8, Decode) = match self {
            Self::None => return Cow::Borrowed(raw),
            Self::Backslash => (b'\\', backslash),
            Self::Json => (b'\\', json),
            Self::Quoted => (b'\\', quoted),
            Self::Hash | Self::HashHeader => (b'#', hash),
        };
        let Some(first) = memchr::memchr(lead, raw) else { return Cow::Borrowed(raw) };
        let mut out = raw[..first].to_vec();
        let mut rest = &raw[first..];
        while let [byte, after @ ..] = rest {
            let taken = if *byte == lead { one(after, &mut out) } else { None };
            rest = match taken {
                Some(bytes) => &after[bytes..],
                None => {
                    out.push(*byte);
                    after
                }
            };
        }
        Cow::Owned(out)
    }
}

/// Adds what an escape stands for, of which these bytes follow the lead; how many belong to it, `None` if it is none.
type Decode = fn(&[u8], &mut Vec<u8>) -> Option<usize>;

fn backslash(after: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    if let [b'x', digits @ ..] = after {
        out.push(hex(digits.get(..2)?)?);
        return Some(3);
    }
    out.push(match after.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'v' => 0x0b,
        b'f' => 0x0c,
        same @ (b'"' | b'\\' | b'\'') => *same,
        _ => return None,
    });
    Some(1)
}

fn json(after: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let unit = |at: usize| u32::from_str_radix(std::str::from_utf8(after.get(at..at + 4)?).ok()?, 16).ok();
    match after.first()? {
        b'u' => {
            let (high, low) = (unit(1)?, after.get(5..7).filter(|lead| *lead == b"\\u").and_then(|_| unit(7)));
            let pair = (0xd800..0xdc00).contains(&high).then_some(low).flatten();
            let pair = pair.filter(|low| (0xdc00..0xe000).contains(low));
            let code = pair.map_or(high, |low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            Some(if pair.is_some() { 11 } else { 5 })
        }
        b'/' => {
            out.push(b'/');
            Some(1)
        }
        b'x' | b'v' | b'\'' => None,
        _ => backslash(after, out),
    }
}

fn quoted(after: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let byte = after.first().filter(|byte| matches!(byte, b'"' | b'\\' | b']'))?;
    out.push(*byte);
    Some(1)
}

fn hash(after: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    out.push(hex(after.get(..2)?)?);
    Some(2)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(*high)? << 4 | value(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_s_escapes_are_undone_and_nothing_else() {
        for (escape, raw, bytes) in [
            (
                Escape::Backslash,
                &br#"quo\"ted \\ \x09tab\ttab caf\xc3\xa9 \xFF"#[..],
                &b"quo\"ted \\ \ttab\ttab caf\xc3\xa9 \xff"[..],
            ),
            (Escape::Backslash, br"\q \x4 \xzz \", br"\q \x4 \xzz \"),
            (Escape::Json, br#"\"\\\/\n\u0001\u00e9\ud83d\ude00\ud83d\x41"#, "\"\\/\n\u{1}é😀\u{fffd}\\x41".as_bytes()),
            (Escape::Quoted, br#"\"\]\\n\x"#, br#""]\n\x"#),
            (Escape::Hash, b"/#22#23#C3#a9#7|#", b"/\"#\xc3\xa9#7|#"),
            (Escape::None, br"\x41#41", br"\x41#41"),
        ] {
            assert_eq!(escape.decode(raw).as_ref(), bytes, "{}", raw.escape_ascii());
        }
    }
}
