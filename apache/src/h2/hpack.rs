//! The order of pseudo-headers in the first header block of a connection (RFC 7541). Values are passed over, not decoded.

/// Names in the static table that begin with `:` (RFC 7541, appendix A), by index from 1: all of a request's, and `:status`.
const STATIC: [u8; 14] = *b"ammppss???????";
/// Where the dynamic table begins.
const DYNAMIC: usize = 62;

/// Names of pseudo-headers of requests, and the letter of each.
const NAMES: [(&[u8], u8); 5] =
    [(b":method", b'm'), (b":authority", b'a'), (b":scheme", b's'), (b":path", b'p'), (b":protocol", b'o')];

/// No request has more; beyond, the block is broken.
const MAX: usize = 16;

/// Letters of the pseudo-headers in front of the first other header, in their order. `None` if the block has none there.
pub fn pseudo_order(block: &[u8]) -> Option<String> {
    let mut fields = Fields { rest: block, inserted: Vec::new() };
    let mut order = String::new();
    while order.len() < MAX {
        match fields.next_name() {
            Some(letter) if letter != 0 => order.push(letter.into()),
            _ => break,
        }
    }
    (!order.is_empty()).then_some(order)
}

struct Fields<'a> {
    rest: &'a [u8],
    /// Names of the fields that this block has put into the dynamic table, the oldest first; 0 for one that is no pseudo-header.
    inserted: Vec<u8>,
}

impl Fields<'_> {
    /// The letter of the next field's name; 0 for a name without `:` in front. `None` at the end, and where the block is broken.
    fn next_name(&mut self) -> Option<u8> {
        loop {
            return match *self.rest.first()? {
                // An indexed field (section 6.1).
                0x80.. => {
                    let index = self.integer(7)?;
                    self.indexed(index)
                }
                // A literal that goes into the dynamic table (section 6.2.1).
                0x40.. => {
                    let name = self.literal(6)?;
                    self.inserted.push(name);
                    Some(name)
                }
                // A change of the table's size (section 6.3).
                0x20.. => {
                    self.integer(5)?;
                    continue;
                }
                // A literal that does not (sections 6.2.2 and 6.2.3).
                _ => self.literal(4),
            };
        }
    }

    fn indexed(&self, index: usize) -> Option<u8> {
        match index {
            0 => None,
            1..=14 => Some(STATIC[index - 1]),
            15..DYNAMIC => Some(0),
            _ => self.inserted.iter().rev().nth(index - DYNAMIC).copied(),
        }
    }

    fn literal(&mut self, bits: u32) -> Option<u8> {
        let name = match self.integer(bits)? {
            0 => {
                let (name, is_coded) = self.string()?;
                letter(name, is_coded)
            }
            index => self.indexed(index)?,
        };
        self.string()?;
        Some(name)
    }

    /// An integer whose first byte has so many bits of it (section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let most = (1_usize << bits) - 1;
        let (first, mut rest) = self.rest.split_first()?;
        let mut value = usize::from(*first) & most;
        if value == most {
            for shift in [0, 7, 14, 21] {
                let (byte, after) = rest.split_first()?;
                rest = after;
                value += usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    self.rest = rest;
                    return Some(value);
                }
            }
            return None;
        }
        self.rest = rest;
        Some(value)
    }

    /// A text as it stands, and whether it is in Huffman's code (section 5.2).
    fn string(&mut self) -> Option<(&[u8], bool)> {
        let is_coded = *self.rest.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some((text, is_coded))
    }
}

/// The letter of a name that the block spells out. A code is compared as such: a text has one only.
fn letter(name: &[u8], is_coded: bool) -> u8 {
    let known = NAMES.iter().find(|(known, _)| if is_coded { coded(known) == name } else { *known == name });
    // `:` is 1011100 in Huffman's code.
    let is_pseudo = || name.first().is_some_and(|byte| if is_coded { byte >> 1 == 0x5c } else { *byte == b':' });
    known.map_or_else(|| if is_pseudo() { b'?' } else { 0 }, |(_, letter)| *letter)
}

/// A pseudo-header's name in Huffman's code (section 5.2 and appendix B).
fn coded(name: &[u8]) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in name {
        let (code, length) = match byte {
            b':' => (0x5c, 7),
            b'a' => (0x3, 5),
            b'c' => (0x4, 5),
            b'e' => (0x5, 5),
            b'i' => (0x6, 5),
            b'o' => (0x7, 5),
            b's' => (0x8, 5),
            b't' => (0x9, 5),
            b'd' => (0x24, 6),
            b'h' => (0x27, 6),
            b'l' => (0x28, 6),
            b'm' => (0x29, 6),
            b'p' => (0x2b, 6),
            b'r' => (0x2c, 6),
            b'u' => (0x2d, 6),
            b'y' => (0x7a, 7),
            _ => (0, 0),
        };
        bits = bits << length | code;
        count += length;
        while count >= 8 {
            count -= 8;
            out.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    if count > 0 {
        // Padded with the first bits of the end's code, which are ones.
        let padding = 8 - count;
        out.extend(u8::try_from((bits << padding | ((1 << padding) - 1)) & 0xff));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(block: &[u8]) -> String {
        pseudo_order(block).unwrap_or_default()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn examples_of_the_rfc() {
        // Appendix C.3.1 and C.4.1.
        assert_eq!(order(&hex("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d")), "mspa");
        assert_eq!(order(&hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")), "mspa");
        // C.3.3 without the requests before: the index 63 is of a table that is empty.
        assert_eq!(order(&hex("8287 85bf 400a 6375 7374 6f6d")), "msp");
    }

    #[test]
    fn names_may_be_spelled_out() {
        let field = |name: &[u8], coded: bool| {
            let length = u8::try_from(name.len()).expect("short") | if coded { 0x80 } else { 0 };
            [&[0, length], name, &[1, b'x']].concat()
        };
        let mut block = Vec::new();
        for (name, _) in NAMES {
            block.extend(field(name, false));
            block.extend(field(&coded(name), true));
        }
        block.extend(field(b":other", false));
        block.extend(field(&coded(b":cede"), true));
        assert_eq!(order(&block), "mmaassppoo??");
        block.extend(field(b"cookie", false));
        block.push(0x82);
        assert_eq!(order(&block), "mmaassppoo??");
    }

    #[test]
    fn huffman_codes_are_those_of_the_appendix() {
        // By nghttp2's `deflatehd`; the bits of ":path" are 1011100 101011 00011 01001 100111 111.
        assert_eq!(coded(b":path"), [0b1011_1001, 0b0101_1000, 0b1101_0011, 0b0011_1111]);
    }

    #[test]
    fn a_table_of_the_block_itself_counts() {
        // :path literal into the table, then by its index there.
        assert_eq!(order(&[0x44, 1, b'/', 0xbe]), "pp");
        // The size of the table, which many clients set first.
        assert_eq!(order(&[0x3f, 0xe1, 0x1f, 0x82]), "m");
    }

    #[test]
    fn a_broken_block_ends_where_it_breaks() {
        for (block, expected) in [
            (&[][..], ""),
            (&[0x80][..], ""),
            (&[0x82, 0x41, 0x7f][..], "m"),
            (&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], "m"),
            (&[0x82, 0x88][..], "m?"),
            (&[0x90][..], ""),
        ] {
            assert_eq!(order(block), expected, "{block:?}");
        }
        assert_eq!(order(&[0x82; 1000]).len(), MAX);
    }

    proptest! {
        #[test]
        fn any_block_has_an_order(block: Vec<u8>) {
            let order = order(&block);
            prop_assert!(order.len() <= MAX && order.bytes().all(|byte| b"maspo?".contains(&byte)));
        }
    }
}
