//! Texts of JSON (RFC 8259), from whatever bytes a client sends.

/// Appends `bytes` to a JSON text, without quotes; how many sequences of bytes were no UTF-8 and became U+FFFD.
pub fn escape(bytes: &[u8], out: &mut String) -> u64 {
    // Nearly all that clients send. Looked at to the end, which takes less time than to stop where it is not so.
    let is_plain =
        bytes.iter().fold(true, |plain, byte| plain & (b' '..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\'));
    if let (true, Ok(text)) = (is_plain, std::str::from_utf8(bytes)) {
        out.push_str(text);
        return 0;
    }
    let mut replaced = 0;
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            out.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                control @ ..0x20 => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.push_str("\\u00");
                    out.push(HEX[usize::from(control >> 4)].into());
                    out.push(HEX[usize::from(control & 15)].into());
                }
                other => out.extend(['\\', other.into()]),
            }
            rest = &rest[at + 1..];
        }
        out.push_str(rest);
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            replaced += 1;
        }
    }
    replaced
}

/// Appends a number with at least so many digits.
pub fn number(out: &mut String, number: u64, digits: usize) {
    let (mut text, mut at, mut rest) = ([b'0'; 20], 20, number);
    while rest > 0 || 20 - at < digits.clamp(1, 20) {
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.push_str(std::str::from_utf8(&text[at..]).unwrap_or("0"));
}

/// The first bytes of a text, at most `max`, without a part of a character at their end.
pub fn prefix(bytes: &[u8], max: usize) -> &[u8] {
    if bytes.len() <= max {
        return bytes;
    }
    // The bytes after a character's first one are 10xxxxxx (RFC 3629, section 3); there are three at most.
    let inside = |at: &usize| bytes[*at] & 0xc0 == 0x80;
    let cut = (max.saturating_sub(3)..=max).rev().find(|at| !inside(at)).unwrap_or(max);
    &bytes[..cut]
}

/// Cuts a text that [`escape`] has made to at most `max` bytes, without a part of a character or of an escape at its end.
pub fn cut(text: &mut String, max: usize) {
    if text.len() <= max {
        return;
    }
    // An escape has six bytes at most. In front of its backslash there is an even number of others.
    let mut end = text.floor_char_boundary(max);
    let bytes = text.as_bytes();
    for start in end.saturating_sub(5)..end {
        let backslashes = bytes[..=start].iter().rev().take_while(|byte| **byte == b'\\').count();
        let length = if bytes.get(start + 1) == Some(&b'u') { 6 } else { 2 };
        if backslashes % 2 == 1 && start + length > end {
            end = start;
            break;
        }
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = String::new();
        escape(bytes, &mut out);
        out
    }

    /// What a reader of JSON makes of a text; `None` if it is none.
    fn read(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next()? {
                    'u' => {
                        let digits: String = chars.by_ref().take(4).collect();
                        (digits.len() == 4).then_some(())?;
                        out.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    c @ ('"' | '\\') => out.push(c),
                    _ => return None,
                },
                '"' | '\0'..' ' => return None,
                c => out.push(c),
            }
        }
        Some(out)
    }

    #[test]
    fn what_json_cannot_hold_is_escaped() {
        assert_eq!(escaped(b"a\"b\\c\td\x01\x7f"), "a\\\"b\\\\c\\u0009d\\u0001\x7f");
        let mut out = String::new();
        assert_eq!(escape(b"a\xff\xfeb\xc3", &mut out), 3);
        assert_eq!(out, "a\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn numbers_have_their_digits() {
        let of = |value, digits| {
            let mut out = String::new();
            number(&mut out, value, digits);
            out
        };
        assert_eq!(
            [of(0, 1), of(0, 0), of(7, 2), of(120, 2), of(u64::MAX, 1)],
            ["0", "0", "07", "120", "18446744073709551615"]
        );
    }

    #[test]
    fn a_prefix_ends_with_a_whole_character() {
        let text = "aü€😀".as_bytes();
        let lengths: Vec<usize> = (0..=text.len()).map(|max| prefix(text, max).len()).collect();
        assert_eq!(lengths, [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]);
        assert_eq!(prefix(&[0x80; 10], 7).len(), 7);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(read(&escaped(&bytes)), Some(String::from_utf8_lossy(&bytes).into_owned()));
        }

        #[test]
        fn a_cut_text_is_a_text(bytes in "[\\\\\"\u{1}aü€u0]{0,30}", max in 0_usize..40) {
            let whole = escaped(bytes.as_bytes());
            let mut text = whole.clone();
            cut(&mut text, max);
            prop_assert!(text.len() <= max && whole.starts_with(&text));
            // No more than an escape is lost.
            prop_assert!(text.len() + 6 > max.min(whole.len()));
            let read = read(&text);
            prop_assert!(read.is_some_and(|read| bytes.starts_with(&read)), "{}", text);
        }
    }
}
