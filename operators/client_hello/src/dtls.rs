//! ClientHellos of DTLS 1.0 (RFC 4347), 1.2 (RFC 6347) and 1.3 (RFC 9147), whose messages may come in fragments over
//! several records and datagrams, in any order.

use super::assembly::Assembly;
use super::bytes::{u8_at, u16_at};
use super::contest::{Contest, Part, Rank};
use super::counters::Counters;
use super::hello::Arrival;
use super::limits::Limits;
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

/// Whether a datagram begins with an unencrypted handshake record, as a server's first answers do.
pub(crate) fn is_handshake(datagram: &[u8]) -> bool {
    record(datagram).is_some()
}

/// Bytes of a hello, and fragments, that are kept once two of them differ.
const MAX_DISPUTED: usize = 16 << 10;
const MAX_PIECES: usize = 64;
/// Messages of one client that are put together at a time: more than one only if it tells more than one story.
const MAX_PARTIAL: usize = 8;

/// A client's datagram.
pub(crate) struct From<'a> {
    pub datagram: &'a [u8],
    pub rank: Rank,
    pub arrival: Arrival,
}

/// What is known of a hello beside its content.
pub(crate) struct Message {
    /// 1 for the answer to a HelloVerifyRequest or HelloRetryRequest.
    pub index: u8,
    /// There was more than one version of its bytes.
    pub disputed: bool,
}

/// The hellos of one client.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The messages that are put together.
    partial: Vec<Partial>,
    /// The last hello that is out.
    last: Option<Last>,
    /// A message went before it was complete.
    lost: bool,
}

/// A message of which fragments are missing.
#[derive(Debug)]
struct Partial {
    message: u16,
    len: usize,
    parts: Assembly,
    /// In place of `parts` once two versions of its bytes have come.
    contest: Option<Box<Contest>>,
}

#[derive(Debug)]
struct Last {
    /// `message_seq`.
    message: u16,
    index: u8,
    /// Group and rank of the packet that completed it.
    how: (u64, Rank),
    body: Vec<u8>,
    /// The server has answered it.
    answered: bool,
}

impl Last {
    fn repeats(&self, fragment: &Fragment<'_>) -> bool {
        let known = self.body.get(fragment.offset..fragment.offset + fragment.data.len());
        fragment.len == self.body.len() && known == Some(fragment.data)
    }
}

impl Connection {
    /// Memory that it takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        let partial = |partial: &Partial| {
            size_of::<Partial>() + partial.parts.held() + partial.contest.as_ref().map_or(0, |contest| contest.held())
        };
        size_of::<Self>()
            + self.partial.iter().map(partial).sum::<usize>()
            + self.last.as_ref().map_or(0, |last| last.body.len())
    }

    /// Whether a hello is out.
    pub(crate) fn is_over(&self) -> bool {
        self.last.is_some()
    }

    /// The server has answered: another version of a hello that is out is none any more.
    ///
    /// Whether that is what it answered to, and whether there is nothing else that it may have answered to.
    pub(crate) fn answered(&mut self) -> (bool, bool) {
        if let Some(last) = &mut self.last {
            last.answered = true;
        }
        (true, self.partial.is_empty())
    }

    /// Takes a datagram; `emit` gets hellos with the packet that completed each.
    pub(crate) fn datagram(
        &mut self,
        from: &From<'_>,
        limits: &Limits,
        counters: &mut Counters,
        emit: &mut impl FnMut(&ClientHello<'_>, &Arrival, Message),
    ) {
        let mut datagram = from.datagram;
        while let Some((mut content, rest)) = record(datagram) {
            datagram = rest;
            while let Some((fragment, more)) = fragment(content) {
                content = more;
                self.fragment(&fragment, from, limits, counters, emit);
            }
        }
    }

    fn fragment(
        &mut self,
        fragment: &Fragment<'_>,
        from: &From<'_>,
        limits: &Limits,
        counters: &mut Counters,
        emit: &mut impl FnMut(&ClientHello<'_>, &Arrival, Message),
    ) {
        if fragment.len > limits.max_hello_bytes {
            counters.buffer_exceeded_count += 1;
            return;
        }
        if self.is_known(fragment, counters) {
            counters.retransmit_count += 1;
            return;
        }
        let partial = self.partial(fragment);
        if !partial.add(fragment, from, limits, counters) {
            counters.segment_exceeded_count += 1;
            self.partial.pop();
            return;
        }
        let Some((body, arrival, disputed)) = partial.body(from) else { return };
        match ClientHello::parse_dtls(&body) {
            Ok(hello) => {
                let message = self.told(fragment, &arrival, from.rank, disputed);
                let (index, how) = (message.index, (arrival.group, from.rank));
                emit(&hello, &arrival, message);
                self.last = Some(Last { message: fragment.message, index, how, body, answered: false });
            }
            Err(_) => counters.malformed_hellos += 1,
        }
        self.partial.pop();
    }

    /// What is known of a hello that is complete.
    fn told(&self, fragment: &Fragment<'_>, arrival: &Arrival, rank: Rank, disputed: bool) -> Message {
        let last = self.last.as_ref();
        let is_next = last.is_some_and(|last| last.message < fragment.message);
        // Nothing but its cookie, which only the server can judge, tells that the next one is of the same client.
        let is_odd = is_next && last.is_some_and(|last| last.how != (arrival.group, rank));
        let is_other_version = last.is_some() && !is_next;
        let index = last.filter(|last| last.message == fragment.message).map_or(u8::from(is_next), |last| last.index);
        let disputed = disputed || self.lost || is_odd || is_other_version;
        Message { index, disputed }
    }

    /// Whether a fragment brings nothing. One of a new connection on the same ports makes this begin anew.
    fn is_known(&mut self, fragment: &Fragment<'_>, counters: &mut Counters) -> bool {
        let Some(last) = &self.last else { return false };
        if fragment.message > last.message {
            return false;
        }
        if last.repeats(fragment) {
            return true;
        }
        if !last.answered {
            return false;
        }
        let random = |body: &[u8]| body.get(2..).and_then(|rest| rest.first_chunk::<32>().copied());
        if fragment.offset > 0 || random(fragment.data).is_none_or(|new| random(&last.body) == Some(new)) {
            return true;
        }
        counters.ports_reused += 1;
        // Or one that was made up: nothing shows which.
        *self = Self { lost: true, ..Self::default() };
        false
    }

    /// The message of a fragment, moved to the end of the list.
    fn partial(&mut self, fragment: &Fragment<'_>) -> &mut Partial {
        let Fragment { message, len, .. } = *fragment;
        let known = self.partial.iter().position(|partial| (partial.message, partial.len) == (message, len));
        let partial = match known {
            Some(at) => self.partial.remove(at),
            None => {
                if self.partial.len() >= MAX_PARTIAL {
                    // Not the first: whoever makes up others hides nothing that came before.
                    self.partial.remove(1);
                    self.lost = true;
                }
                Partial { message, len, parts: Assembly::default(), contest: None }
            }
        };
        self.partial.push(partial);
        let last = self.partial.len() - 1;
        &mut self.partial[last]
    }
}

impl Partial {
    /// Takes a fragment; false if there were too many.
    fn add(&mut self, fragment: &Fragment<'_>, from: &From<'_>, limits: &Limits, counters: &mut Counters) -> bool {
        let at = fragment.offset as u32;
        if self.contest.is_none() && self.parts.contradicts(0, at, fragment.data) {
            counters.overlap_conflicts += 1;
            let mut contest = Box::new(Contest::limited(0, limits.max_hello_bytes.min(MAX_DISPUTED), MAX_PIECES));
            let parts = std::mem::take(&mut self.parts);
            let arrival = parts.latest.unwrap_or(from.arrival);
            contest.add_known(parts.into_parts(0), arrival);
            self.contest = Some(contest);
        }
        match &mut self.contest {
            Some(contest) => {
                let bytes = fragment.data.to_vec();
                contest.add(Part { at, rank: from.rank, bytes, arrival: from.arrival, is_whole: false })
            }
            None => {
                self.parts.insert(0, at, fragment.data, limits.max_hello_bytes);
                self.parts.latest = Some(from.arrival);
                self.parts.segments() < limits.max_segments
            }
        }
    }

    /// The message without its header if it is complete, the packet that completed it, and whether there is another
    /// version.
    fn body(&mut self, from: &From<'_>) -> Option<(Vec<u8>, Arrival, bool)> {
        let Some(contest) = &self.contest else {
            self.parts.ready().filter(|data| data.len() >= self.len)?;
            let mut body = std::mem::take(&mut self.parts).into_data();
            body.truncate(self.len);
            return Some((body, from.arrival, false));
        };
        contest.orders().find_map(|order| {
            let version = contest.version(order, Rank::Doubtful);
            let body = version.stream.get(..self.len).filter(|body| ClientHello::parse_dtls(body).is_ok())?;
            Some((body.to_vec(), version.completed(self.len)?, true))
        })
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
            let from = From { datagram, rank: Rank::Trusted, arrival: crate::sample::arrival() };
            connection.datagram(&from, &Limits::default(), &mut counters, &mut |hello, _, message| {
                found.push((message.index, hello.ciphers().count()));
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
        let (found, _) = run(&[second, records(&other, 1, 4000)].concat());
        assert_eq!(found, [(0, 16), (0, 16)]);
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
