//! What an interface description block of pcapng says, and how its times become ns.

/// Codes of options.
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;

/// Bytes of a name that are kept.
const MAX_NAME: usize = 256;

/// How the numbers of a time become ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Of so many ns.
    Nanoseconds(u64),
    /// So many of them are a ns.
    Parts(u128),
    /// 2 to this of them are a second.
    Binary(u8),
}

impl Unit {
    /// Of the option if_tsresol.
    fn of(resolution: u8) -> Self {
        let digits = u32::from(resolution & 0x7f);
        match (resolution & 0x80, digits) {
            (0, 0..=9) => Self::Nanoseconds(10_u64.pow(9 - digits)),
            // With so many no number of 64 bits is as much as a ns, nor with more.
            (0, _) => Self::Parts(10_u128.pow((digits - 9).min(38))),
            _ => Self::Binary(resolution & 0x7f),
        }
    }

    fn nanoseconds(self, units: u64) -> u128 {
        let units = u128::from(units);
        match self {
            Self::Nanoseconds(each) => units * u128::from(each),
            Self::Parts(parts) => units / parts,
            Self::Binary(digits) => (units * 1_000_000_000) >> digits,
        }
    }
}

/// An interface.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    pub linktype: i32,
    /// Bytes of a packet that are captured; 0 if there is no limit.
    pub snaplen: u32,
    pub name: Option<Box<str>>,
    unit: Unit,
    /// Seconds to add to a time.
    offset: i64,
}

impl Interface {
    /// Of a block's options, and what stands before them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(linktype: u16, snaplen: u32, options: &[u8], big: bool) -> Result<Self, String> {
        let (unit, linktype) = (Unit::Nanoseconds(1000), linktype.into());
        let mut interface = Self { linktype, snaplen, name: None, unit, offset: 0 };
        let mut options = Options { rest: options, big };
        while let Some((code, value)) = options.next()? {
            match (code, value) {
                (IF_NAME, name) => interface.name = text(name),
                (IF_TSRESOL, [resolution]) => interface.unit = Unit::of(*resolution),
                (IF_TSOFFSET, &[a, b, c, d, e, f, g, h]) => {
                    let bytes = [a, b, c, d, e, f, g, h];
                    interface.offset = if big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
                (IF_TSRESOL | IF_TSOFFSET, _) => {
                    return Err(format!("an interface's option {code} of {} bytes", value.len()));
                }
                _ => {}
            }
        }
        Ok(interface)
    }

    /// A time in ns since the epoch.
    pub fn time(&self, units: u64) -> i64 {
        // 64 bits times 30 at most.
        let time = self.unit.nanoseconds(units) as i128 + i128::from(self.offset) * 1_000_000_000;
        time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// A name; some writers fill it up with zeros.
fn text(name: &[u8]) -> Option<Box<str>> {
    let name = String::from_utf8_lossy(name);
    let name = name.trim_end_matches('\0');
    let name = &name[..name.floor_char_boundary(MAX_NAME)];
    (!name.is_empty()).then(|| name.into())
}

/// The options at the end of a block.
struct Options<'a> {
    rest: &'a [u8],
    big: bool,
}

impl<'a> Options<'a> {
    /// The next one's code and value.
    fn next(&mut self) -> Result<Option<(u16, &'a [u8])>, String> {
        let Some((&[a, b, c, d], rest)) = self.rest.split_first_chunk() else { return Ok(None) };
        let [code, length] = [[a, b], [c, d]].map(if self.big { u16::from_be_bytes } else { u16::from_le_bytes });
        if code == 0 {
            return Ok(None);
        }
        let length = usize::from(length);
        let value = rest
            .get(..length)
            .ok_or_else(|| format!("an interface's option {code} of {length} bytes, in {}", rest.len()))?;
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Ok(Some((code, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = [code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat();
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn of(options: &[Vec<u8>]) -> Result<Interface, String> {
        Interface::new(1, 0, &options.concat(), false)
    }

    #[test]
    fn times_have_units_of_ten_and_of_two_and_an_offset() {
        for (resolution, units, ns) in [
            (6, 1_700_000_000_000_001, 1_700_000_000_000_001_000),
            (9, 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
            (3, 1_700_000_000_001, 1_700_000_000_001_000_000),
            (0, 1_700_000_000, 1_700_000_000_000_000_000),
            (12, 1_700_000_000_000_001_999, 1_700_000_000_000_001),
            (127, u64::MAX, 0),
            (0x80 | 20, 3 << 19, 1_500_000_000),
            (0x80 | 20, 1, 953),
            (0x80, 7, 7_000_000_000),
            (0xff, u64::MAX, 0),
            (0, u64::MAX, i64::MAX),
        ] {
            assert_eq!(of(&[option(9, &[resolution])]).expect("valid").time(units), ns, "{resolution}");
        }
        let shifted = |seconds: i64| of(&[option(9, &[9]), option(14, &seconds.to_le_bytes())]).expect("valid");
        assert_eq!(shifted(5).time(7), 5_000_000_007);
        assert_eq!(shifted(-1).time(7), -999_999_993);
        assert_eq!((shifted(i64::MAX).time(u64::MAX), shifted(i64::MIN).time(7)), (i64::MAX, i64::MIN));
    }

    #[test]
    fn names_are_text_of_a_bounded_length() {
        let name = |bytes: &[u8]| of(&[option(2, bytes)]).expect("valid").name.map(String::from);
        assert_eq!(name(b"eth0"), Some("eth0".into()));
        assert_eq!(name(b"eth0\0\0"), Some("eth0".into()));
        assert_eq!(name(b"\xffx"), Some("\u{fffd}x".into()));
        assert_eq!((name(b""), name(b"\0")), (None, None));
        assert_eq!(name("é".repeat(5000).as_bytes()).map(|name| name.len()), Some(256));
        assert_eq!(name(&[b"a", "é".repeat(5000).as_bytes()].concat()).map(|name| name.len()), Some(255));
    }

    #[test]
    fn options_end_with_their_end_and_do_not_reach_beyond_the_block() {
        let all = [option(3, b"a comment"), option(0, b""), option(9, &[9])];
        assert_eq!(of(&all).expect("valid").time(1), 1000);
        assert!(of(&[option(9, &[9, 9])]).is_err_and(|what| what.contains("option 9 of 2 bytes")));
        assert!(of(&[option(14, &[0; 4])]).is_err_and(|what| what.contains("option 14 of 4 bytes")));
        assert!(of(&[vec![2, 0, 9, 0, b'e', b't', b'h', b'0']]).is_err_and(|what| what.contains("9 bytes, in 4")));
        // What is shorter than an option, and a value without its padding.
        assert!(of(&[vec![2, 0, 9]]).is_ok_and(|interface| interface.name.is_none()));
        assert!(of(&[vec![2, 0, 2, 0, b'l', b'o']]).is_ok_and(|interface| interface.name.as_deref() == Some("lo")));
    }
}
