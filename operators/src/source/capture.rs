//! A live capture: a thread that takes packets from the kernel and hands them over in chunks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use capture_file::Record;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Privileges;
use engine::contract::wall_clock_ns;
use engine::contract::{Failure, FailureClass};
use engine::contract::{Poll, Reader};
use engine::spec::nearest;
use parking_lot::Mutex;
use pcap::{Active, Capture, Device, Precision};

use super::bpf::{Filter, message};
use super::packets::{Packets, timestamp};

/// How long the kernel gathers packets before it hands them over, in ms.
const TIMEOUT_MS: i32 = 50;

/// How long the thread sleeps when the kernel has nothing. It never blocks in libpcap, where with TPACKET_V3 a wait
/// without traffic does not end, whatever the timeout.
const SLEEP: Duration = Duration::from_millis(5);

/// How long packets wait for their chunk to fill.
const PATIENCE: Duration = Duration::from_millis(20);

/// Captured bytes of a chunk.
const CHUNK: usize = 256 << 10;

/// How many chunks wait at most; beyond, packets wait in the kernel's buffer and are then dropped and counted there.
const QUEUE: usize = 32;

/// How long packets that the kernel has, but has not handed over, are waited for when the capture is to end, and how long at
/// most packets are taken that still come.
pub(crate) const DRAIN: [Duration; 2] = [Duration::from_millis(2 * TIMEOUT_MS as u64), Duration::from_secs(1)];

/// How often the kernel is asked for its counters.
const STATS: Duration = Duration::from_secs(1);

/// How interfaces are opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub interfaces: Vec<String>,
    pub filter: Filter,
    /// Bytes of a packet that are captured.
    pub snaplen: i32,
    pub promiscuous: bool,
    /// Bytes of the kernel's buffer.
    pub buffer_size: i32,
}

impl Settings {
    /// Opens all interfaces, in their order.
    pub(crate) fn open(&self) -> Result<Vec<Capture<Active>>, Failure> {
        self.interfaces.iter().map(|interface| self.open_one(interface)).collect()
    }

    /// The same, where the rights for it are.
    pub(crate) fn open_with(&self, privileges: &Privileges) -> Result<Vec<Capture<Active>>, Failure> {
        let settings = self.clone();
        privileges.with(move || settings.open()).unwrap_or_else(|message| {
            let message = format!("{} cannot be captured: {message}", self.interfaces.join(", "));
            Err(Failure { class: FailureClass::Permission, message })
        })
    }

    fn open_one(&self, interface: &str) -> Result<Capture<Active>, Failure> {
        let fault = |error| explain(interface, &message(&error));
        let mut capture = Capture::from_device(interface)
            .map_err(fault)?
            .promisc(self.promiscuous)
            .snaplen(self.snaplen)
            .buffer_size(self.buffer_size)
            .timeout(TIMEOUT_MS)
            .precision(Precision::Nano)
            .open()
            .and_then(Capture::setnonblock)
            .map_err(fault)?;
        self.filter.set(&mut capture).map_err(|error| format!("the filter does not suit {interface}: {error}"))?;
        Ok(capture)
    }
}

/// What libpcap's message means, and what to do.
fn explain(interface: &str, message: &str) -> Failure {
    let lower = message.to_lowercase();
    if lower.contains("permi") {
        let message = format!(
            "no permission to capture on {interface}: run as root or give the binary cap_net_raw \
             (setcap cap_net_raw+ep …)"
        );
        return Failure { class: FailureClass::Permission, message };
    }
    if !lower.contains("no such device") && !lower.contains("doesn't exist") {
        return format!("{interface} cannot be captured: {message}").into();
    }
    let devices = Device::list().unwrap_or_default();
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let message = match nearest(interface, names.iter().copied()) {
        Some(name) => format!("no interface {interface}; did you mean {name}?"),
        None => format!("no interface {interface}; there are {}", names.join(", ")),
    };
    message.into()
}

/// Packets of one interface, one after the other.
struct Chunk {
    interface: Arc<str>,
    linktype: i32,
    /// Time in ns, length on the wire, end of the bytes in `data`.
    heads: Vec<(i64, u32, usize)>,
    data: Vec<u8>,
}

/// Reads what the threads capture.
pub(crate) struct Live {
    queue: Receiver<Result<Chunk, String>>,
    packets: Packets,
    stop: Arc<AtomicBool>,
    /// For each interface.
    drained: Vec<Arc<AtomicI64>>,
}

impl Live {
    /// Opens the interfaces and starts a thread for each. `packets` makes the rows.
    pub(super) fn start(
        settings: &Settings,
        privileges: &Privileges,
        metrics: &NodeMetrics,
        packets: Packets,
    ) -> Result<Self, Failure> {
        let captures = settings.open_with(privileges)?;
        let (sender, queue) = bounded(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let mut drained = Vec::with_capacity(captures.len());
        let several = captures.len() > 1;
        for (capture, interface) in captures.into_iter().zip(&settings.interfaces) {
            drained.push(Arc::new(AtomicI64::new(0)));
            let thread = Thread {
                linktype: capture.get_datalink().0,
                capture,
                sender: sender.clone(),
                stop: Arc::clone(&stop),
                counters: Counters::new(metrics, several.then_some(interface)),
                drained: drained.last().cloned().unwrap_or_default(),
                interface: interface.as_str().into(),
            };
            let named = std::thread::Builder::new().name(format!("pcap {interface}"));
            named.spawn(move || thread.run()).map_err(|error| format!("no thread to capture with: {error}"))?;
        }
        Ok(Self { queue, packets, stop, drained })
    }
}

/// What the kernel has counted on an interface.
struct Counters {
    /// Received, dropped by the kernel, dropped by the interface: of the source, and of the interface alone if it has several.
    shown: Vec<[Arc<AtomicU64>; 3]>,
    last: [u32; 3],
}

impl Counters {
    fn new(metrics: &NodeMetrics, interface: Option<&String>) -> Self {
        const NAMES: [&str; 3] = ["kernel_received", "kernel_dropped", "interface_dropped"];
        let mut shown = vec![NAMES.map(|name| metrics.counter(name))];
        shown.extend(interface.map(|interface| NAMES.map(|name| metrics.counter(kept(format!("{name}:{interface}"))))));
        Self { shown, last: [0; 3] }
    }

    /// The kernel counts from the start of the capture, in 32 bits.
    fn take(&mut self, stats: pcap::Stat) {
        let now = [stats.received, stats.dropped, stats.if_dropped];
        for ((nth, now), last) in now.into_iter().enumerate().zip(&mut self.last) {
            for shown in &self.shown {
                shown[nth].fetch_add(now.wrapping_sub(*last).into(), Relaxed);
            }
            *last = now;
        }
    }
}

/// A text that lives as long as the process; each is kept once, so that changes of the pipeline do not pile them up.
fn kept(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock();
    match names.get(name.as_str()) {
        Some(name) => name,
        None => {
            let name: &'static str = Box::leak(name.into_boxed_str());
            names.insert(name);
            name
        }
    }
}

impl Reader for Live {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        self.packets.look_at_clock();
        let poll = loop {
            // Before the queue is looked at: what is handed over in between counts for the next time.
            let drained = self.drained.iter().map(|drained| drained.load(Acquire)).min().unwrap_or(0);
            match self.queue.try_recv() {
                Ok(chunk) => {
                    let chunk = chunk?;
                    let (mut start, mut full) = (0, false);
                    for (time, wire_len, end) in chunk.heads {
                        let (linktype, interface_name) = (chunk.linktype, Some(&*chunk.interface));
                        let data = &chunk.data[start..end];
                        let packet = Record { time, linktype, wire_len, interface: 0, interface_name, data };
                        full |= self.packets.take(&packet);
                        start = end;
                    }
                    if full {
                        break Poll::Ready;
                    }
                }
                Err(TryRecvError::Empty) => {
                    self.packets.idle(drained);
                    break Poll::Idle;
                }
                Err(TryRecvError::Disconnected) => {
                    self.packets.close();
                    self.packets.end();
                    break Poll::Done;
                }
            }
        };
        self.packets.flush(out)?;
        Ok(poll)
    }

    fn watermark(&self) -> Time {
        self.packets.watermark()
    }

    fn stop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// The thread that captures.
struct Thread {
    capture: Capture<Active>,
    linktype: i32,
    sender: Sender<Result<Chunk, String>>,
    stop: Arc<AtomicBool>,
    counters: Counters,
    /// Wall clock in ns: all packets that had come by then have been handed over. Time may pass up to here.
    drained: Arc<AtomicI64>,
    interface: Arc<str>,
}

impl Thread {
    fn run(mut self) {
        let (mut chunk, mut begun, mut asked) = (self.empty(), Instant::now(), Instant::now());
        let mut ends: Option<Instant> = None;
        loop {
            let mut idle = false;
            let before = wall_clock_ns();
            let failure = match self.capture.next_packet() {
                Ok(packet) => {
                    if chunk.heads.is_empty() {
                        begun = Instant::now();
                    }
                    chunk.data.extend_from_slice(packet.data);
                    chunk.heads.push((timestamp(packet.header), packet.header.len, chunk.data.len()));
                    if chunk.data.len() < CHUNK && begun.elapsed() < PATIENCE {
                        continue;
                    }
                    None
                }
                Err(pcap::Error::TimeoutExpired) => {
                    idle = true;
                    None
                }
                Err(pcap::Error::NoMorePackets) => return,
                Err(error) => Some(format!("the capture on {} ended: {}", self.interface, message(&error))),
            };
            let stopping = self.stop.load(Relaxed);
            let ended = stopping && {
                let since = ends.get_or_insert_with(Instant::now).elapsed();
                since >= DRAIN[0] && idle || since >= DRAIN[1]
            };
            if stopping || asked.elapsed() >= STATS {
                self.count();
                asked = Instant::now();
            }
            if !chunk.heads.is_empty() && self.sender.send(Ok(std::mem::replace(&mut chunk, self.empty()))).is_err() {
                return;
            }
            if let Some(failure) = failure {
                // Nobody reads any more if this fails.
                let _ = self.sender.send(Err(failure));
                return;
            }
            if ended {
                return;
            }
            if idle {
                self.drained.store(before, Release);
                std::thread::sleep(SLEEP);
            }
        }
    }

    fn empty(&self) -> Chunk {
        Chunk { interface: Arc::clone(&self.interface), linktype: self.linktype, heads: Vec::new(), data: Vec::new() }
    }

    fn count(&mut self) {
        if let Ok(stats) = self.capture.stats() {
            self.counters.take(stats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_over_interfaces_and_over_the_end_of_32_bits() {
        let metrics = NodeMetrics::default();
        let (one, other) = ("eth0".to_owned(), "eth1".to_owned());
        let (mut one, mut other) = (Counters::new(&metrics, Some(&one)), Counters::new(&metrics, Some(&other)));
        let stat = |received, dropped| pcap::Stat { received, dropped, if_dropped: 1 };
        one.take(stat(u32::MAX, 1));
        one.take(stat(4, 3));
        other.take(stat(7, 0));
        let named: Vec<(&str, u64)> = metrics.named();
        let found = |name: &str| named.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        assert_eq!(found("kernel_received:eth0"), Some((1 << 32) + 4));
        assert_eq!(found("kernel_received:eth1"), Some(7));
        assert_eq!((found("kernel_received"), found("kernel_dropped")), (Some((1 << 32) + 11), Some(3)));
        assert_eq!((found("interface_dropped"), found("kernel_dropped:eth0")), (Some(2), Some(3)));
    }

    #[test]
    fn messages_say_what_to_do() {
        let Failure { class, message: text } = explain(
            "eth0",
            "eth0: You don't have permission to capture on that device (socket: Operation not permitted)",
        );
        assert!(
            text.starts_with("no permission to capture on eth0: run as root or give the binary cap_net_raw"),
            "{text}"
        );
        assert_eq!(class, FailureClass::Permission);
        let text = explain("l0", "l0: No such device exists (SIOCGIFHWADDR: No such device)").message;
        assert!(text.starts_with("no interface l0; "), "{text}");
        assert_eq!(explain("eth0", "That device is not up").message, "eth0 cannot be captured: That device is not up");
    }
}
