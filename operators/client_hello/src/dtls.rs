//! ClientHellos of DTLS 1.0 (RFC 4347), 1.2 (RFC 6347) and 1.3 (RFC 9147), whose messages may come in fragments over
//! several records and datagrams, in any order.

use super::assembly::Assembly;
use super::bytes::{u8_at, u16_at};
use super::counters::Counters;
use super::extractor::Limits;
use super::tls::ClientHello;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;

/// A part of a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment<'a> {
    /// `message_seq`: 0 for the first hello, 1 for the one that returns a cookie.
    message: u16,
    /// Bytes of the whole message.
    len: usize,
    offset: usize,
    data: &'a [u8],
}

/// Whether a datagram begins with a part of a ClientHello.
pub(crate) fn is_client_hello(datagram: &[u8]) -> bool {
    let message = u8_at(datagram, RECORD_HEADER) == Some(CLIENT_HELLO);
    message && record(datagram).is_some_and(|(content, _)| fragment(content).is_some())
}

/// Content of the unencrypted handshake record at the front of `data`, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = data.first_chunk::<RECORD_HEADER>()?;
    // 0x0100 is the version of OpenSSL before DTLS was a standard.
    let version = matches!(header[1..3], [0xfe, 0xfc..=0xff] | [1, 0]);
    let epoch = u16_at(header, 3)?;
    let len = usize::from(u16_at(header, 11)?);
    if header[0] != HANDSHAKE || !version || epoch != 0 {
        return None;
    }
    let content = data.get(RECORD_HEADER..RECORD_HEADER + len)?;
    Some((content, &data[RECORD_HEADER + len..]))
}

fn fragment(content: &[u8]) -> Option<(Fragment<'_>, &[u8])> {
    let header = content.first_chunk::<MESSAGE_HEADER>()?;
    let number = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]) as usize;
    let (len, offset, part) = (number(1), number(6), number(9));
    let data = content.get(MESSAGE_HEADER..MESSAGE_HEADER + part)?;
    if header[0] != CLIENT_HELLO || offset + part > len || part == 0 {
        return None;
    }
    Some((Fragment { message: u16_at(header, 4)?, len, offset, data }, &content[MESSAGE_HEADER + part..]))
}

/// The hellos of one client.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The message that is put together.
    message: u16,
    len: usize,
    parts: Assembly,
    /// `message_seq` and random of the last hello that is out.
    last: Option<(u16, [u8; 32])>,
}

impl Connection {
    /// Memory that it takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.parts.held()
    }

    /// Whether a hello is out.
    pub(crate) fn is_over(&self) -> bool {
        self.last.is_some()
    }

    /// Takes a datagram; `emit` gets hellos with their index.
    pub(crate) fn datagram(
        &mut self,
        mut datagram: &[u8],
        limits: &Limits,
        counters: &mut Counters,
        emit: &mut impl FnMut(&ClientHello<'_>, u8),
    ) {
        while let Some((mut content, rest)) = record(datagram) {
            datagram = rest;
            while let Some((fragment, more)) = fragment(content) {
                content = more;
                self.fragment(&fragment, limits, counters, emit);
            }
        }
    }

    fn fragment(
        &mut self,
        fragment: &Fragment<'_>,
        limits: &Limits,
        counters: &mut Counters,
        emit: &mut impl FnMut(&ClientHello<'_>, u8),
    ) {
        if fragment.len > limits.max_hello_bytes {
            counters.buffer_exceeded_count += 1;
            return;
        }
        let random = (fragment.offset == 0).then(|| fragment.data.get(2..)?.first_chunk::<32>().copied()).flatten();
        if let Some((message, known)) = self.last {
            let again = random.is_none_or(|random| random == known);
            if again && fragment.message <= message {
                counters.retransmit_count += 1;
                return;
            }
            if !again && fragment.message <= message {
                // Another random at a number that was used: a new connection on the same ports.
                counters.ports_reused += 1;
                *self = Self::default();
            }
        }
        if (fragment.message, fragment.len) != (self.message, self.len) {
            (self.message, self.len, self.parts) = (fragment.message, fragment.len, Assembly::default());
        }
        counters.overlap_conflicts += u64::from(self.parts.contradicts(0, fragment.offset as u32, fragment.data));
        self.parts.insert(0, fragment.offset as u32, fragment.data, limits.max_hello_bytes);
        if self.parts.segments() >= limits.max_segments {
            counters.segment_exceeded_count += 1;
            self.parts = Assembly::default();
        }
        let Some(body) = self.parts.ready().and_then(|data| data.get(..self.len)) else { return };
        match ClientHello::parse_dtls(body) {
            Ok(hello) => {
                // Not by `message_seq`: of a connection whose first hello was not captured, this is the first.
                emit(&hello, u8::from(self.last.is_some()));
                let random = body.get(2..).and_then(|rest| rest.first_chunk::<32>());
                self.last = Some((self.message, random.copied().unwrap_or_default()));
            }
            Err(_) => counters.malformed_hellos += 1,
        }
        self.parts = Assembly::default();
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! Builds records for tests.

    use super::*;

    /// The records of a message whose body is this, in fragments of so many bytes.
    pub(crate) fn records(body: &[u8], message: u16, size: usize) -> Vec<Vec<u8>> {
        let record = |(at, part): (usize, &[u8])| {
            let [_, l1, l2, l3] = (body.len() as u32).to_be_bytes();
            let [_, o1, o2, o3] = ((at * size) as u32).to_be_bytes();
            let [_, p1, p2, p3] = (part.len() as u32).to_be_bytes();
            let [m1, m2] = message.to_be_bytes();
            let [r1, r2] = ((MESSAGE_HEADER + part.len()) as u16).to_be_bytes();
            let header = [HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, at as u8, r1, r2];
            [&header[..], &[CLIENT_HELLO, l1, l2, l3, m1, m2, o1, o2, o3, p1, p2, p3], part].concat()
        };
        body.chunks(size).enumerate().map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::sample::records;
    use super::*;
    use crate::sample::chrome;

    fn run(datagrams: &[Vec<u8>]) -> (Vec<(u8, usize)>, Counters) {
        let (mut connection, mut counters, mut found) = (Connection::default(), Counters::default(), Vec::new());
        for datagram in datagrams {
            connection.datagram(datagram, &Limits::default(), &mut counters, &mut |hello, index| {
                found.push((index, hello.ciphers().count()));
            });
        }
        (found, counters)
    }

    #[test]
    fn fragments_come_together_in_any_order() {
        let body = chrome().dtls_body(b"");
        assert_eq!(run(&records(&body, 0, 4000)).0, [(0, 16)]);
        for size in [1, 50, 200] {
            let mut parts = records(&body, 0, size);
            assert_eq!(run(&parts).0, [(0, 16)], "{size}");
            assert_eq!(run(&[parts.concat()]).0, [(0, 16)], "{size}");
            parts.reverse();
            assert_eq!(run(&parts).0, [(0, 16)], "{size}");
        }
    }

    #[test]
    fn the_hello_that_returns_a_cookie_has_index_1() {
        let first = records(&chrome().dtls_body(b""), 0, 4000).concat();
        let second = records(&chrome().dtls_body(b"cookie"), 1, 100);
        let all = [vec![first.clone(), first], second.clone(), second].concat();
        assert_eq!(run(&all).0, [(0, 16), (1, 16)]);
    }

    #[test]
    fn the_hello_with_a_cookie_has_index_0_if_the_first_was_not_captured() {
        let second = records(&chrome().dtls_body(b"cookie"), 1, 100);
        assert_eq!(run(&[second.clone(), second.clone()].concat()).0, [(0, 16)]);
        // A part of the first is no hello either, before or after.
        let part = records(&chrome().dtls_body(b""), 0, 100)[..1].to_vec();
        assert_eq!(run(&[part.clone(), second.clone(), part].concat()).0, [(0, 16)]);
        // Then the same ports serve another connection, whose first hello is not there either.
        let mut other = chrome().dtls_body(b"cookie");
        other[5] ^= 1;
        let (found, counters) = run(&[second, records(&other, 1, 4000)].concat());
        assert_eq!((found, counters.ports_reused), (vec![(0, 16), (0, 16)], 1));
    }

    #[test]
    fn what_is_not_a_hello_is_told() {
        let whole = records(&chrome().dtls_body(b""), 0, 4000).concat();
        assert!(is_client_hello(&whole));
        for (at, value) in [(0, 23), (1, 3), (4, 1), (13, 2), (12, 0)] {
            let mut other = whole.clone();
            other[at] = value;
            assert!(!is_client_hello(&other), "{at}");
        }
        assert!(!is_client_hello(&whole[..whole.len() - 1]));
    }
}
