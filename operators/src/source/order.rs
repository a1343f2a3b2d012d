//! Packets in the order of their time.
//!
//! Several queues or interfaces, and captures that were merged, hand packets over a little out of order. What follows
//! connections must not see that: a client's later segment before its SYN looks like a connection whose beginning was
//! missed, and data of an old connection on the same ports like that of the new one. So packets wait for a while. What
//! waits is a function of the packets alone, whatever the batches that they come in.

use crate::timeline::{Timed, Timeline};

/// Packets that wait at most.
const MAX_PACKETS: usize = 256 << 10;

/// Bytes that wait at most.
const MAX_BYTES: usize = 64 << 20;

/// Width of a bucket in ns.
const WIDTH: i64 = 10_000_000;

/// A packet as captured; ordered by time, then by position.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packet {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub seq: u64,
    pub linktype: i32,
    pub wire_len: u32,
    /// The number of its interface.
    pub interface: u32,
    pub data: Box<[u8]>,
}

impl Timed for Packet {
    fn time(&self) -> i64 {
        self.time
    }
}

/// Packets that wait for earlier ones.
pub(crate) struct Order {
    waiting: Timeline<Packet>,
    bytes: usize,
    /// For how long, in ns of the packets' time.
    window: i64,
    /// The latest time that has come, ns since the epoch.
    latest: i64,
    /// The latest time that was given out.
    given: i64,
    /// Packets that came after one of a later time had been given out.
    pub disordered: u64,
}

impl Order {
    /// Packets wait for `window` ns.
    pub(crate) fn new(window: i64) -> Self {
        let waiting = Timeline::new(WIDTH);
        Self { waiting, bytes: 0, window, latest: i64::MIN, given: i64::MIN, disordered: 0 }
    }

    pub(crate) fn push(&mut self, packet: Packet) {
        self.disordered += u64::from(packet.time < self.given);
        self.bytes += packet.data.len();
        self.latest = self.latest.max(packet.time);
        self.waiting.push(packet);
    }

    /// No packet comes any more that is older than this, in ns since the epoch, by more than the window.
    pub(crate) fn pass(&mut self, now: i64) {
        self.latest = self.latest.max(now);
    }

    /// The next packet that has waited for long enough, or the first if too many wait.
    pub(crate) fn pop(&mut self) -> Option<Packet> {
        let full = self.bytes > MAX_BYTES || self.waiting.len() > MAX_PACKETS;
        let bound = if full { i64::MAX } else { self.latest.saturating_sub(self.window) };
        let packet = self.waiting.pop_before(bound)?;
        self.bytes -= packet.data.len();
        self.given = self.given.max(packet.time);
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(time: i64, seq: u64) -> Packet {
        Packet { time, seq, linktype: 1, wire_len: 60, interface: 0, data: [0; 60].into() }
    }

    fn given(order: &mut Order) -> Vec<(i64, u64)> {
        std::iter::from_fn(|| order.pop()).map(|packet| (packet.time, packet.seq)).collect()
    }

    #[test]
    fn packets_leave_in_the_order_of_their_time_once_the_window_has_passed() {
        let mut order = Order::new(100);
        for (seq, time) in [50, 30, 30, 120, 90].into_iter().enumerate() {
            order.push(packet(time, seq as u64));
        }
        assert_eq!(given(&mut order), []);
        order.push(packet(140, 5));
        assert_eq!(given(&mut order), [(30, 1), (30, 2)]);
        order.pass(221);
        assert_eq!(given(&mut order), [(50, 0), (90, 4), (120, 3)]);
        order.push(packet(110, 6));
        assert_eq!((order.disordered, given(&mut order)), (1, vec![(110, 6)]));
        order.pass(i64::MAX);
        assert_eq!(given(&mut order), [(140, 5)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut order = Order::new(i64::MAX);
        for seq in 0..MAX_PACKETS as u64 + 10 {
            order.push(packet(seq as i64, seq));
        }
        assert_eq!(given(&mut order).len(), 10);
        order.push(packet(3, 1 << 40));
        assert_eq!(order.disordered, 1);
    }
}
