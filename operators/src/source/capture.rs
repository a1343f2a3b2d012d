//! A live capture: a thread that takes packets from the kernel and hands them over in chunks.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use engine::batch::{Batch, Time};
use engine::metrics::NodeMetrics;
use engine::render::{Failure, FailureClass};
use engine::source::{Poll, Reader};
use engine::spec::nearest;
use engine::time::wall_clock_ns;
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

/// How often the kernel is asked for its counters.
const STATS: Duration = Duration::from_secs(1);

/// How an interface is opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub interface: String,
    pub filter: Filter,
    /// Bytes of a packet that are captured.
    pub snaplen: i32,
    pub promiscuous: bool,
    /// Bytes of the kernel's buffer.
    pub buffer_size: i32,
}

impl Settings {
    pub(crate) fn open(&self) -> Result<Capture<Active>, Failure> {
        let fault = |error| explain(&self.interface, &message(&error));
        let mut capture = Capture::from_device(self.interface.as_str())
            .map_err(fault)?
            .promisc(self.promiscuous)
            .snaplen(self.snaplen)
            .buffer_size(self.buffer_size)
            .timeout(TIMEOUT_MS)
            .precision(Precision::Nano)
            .open()
            .and_then(Capture::setnonblock)
            .map_err(fault)?;
        self.filter
            .set(&mut capture)
            .map_err(|error| format!("the filter does not suit {}: {error}", self.interface))?;
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

/// Packets one after the other.
#[derive(Default)]
struct Chunk {
    /// Time in ns, length on the wire, end of the bytes in `data`.
    heads: Vec<(i64, u32, usize)>,
    data: Vec<u8>,
}

/// Reads what the thread captures.
pub(crate) struct Live {
    queue: Receiver<Result<Chunk, String>>,
    packets: Packets,
    stop: Arc<AtomicBool>,
    drained: Arc<AtomicI64>,
}

impl Live {
    /// Opens the interface and starts the thread. `packets` makes the rows, given the linktype.
    pub(super) fn start(
        settings: &Settings,
        metrics: &NodeMetrics,
        packets: impl FnOnce(i32) -> Packets,
    ) -> Result<Self, Failure> {
        let capture = settings.open()?;
        let packets = packets(capture.get_datalink().0);
        let (sender, queue) = bounded(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let drained = Arc::new(AtomicI64::new(0));
        let thread = Thread {
            capture,
            sender,
            stop: Arc::clone(&stop),
            received: metrics.counter("kernel_received"),
            dropped: metrics.counter("kernel_dropped"),
            drained: Arc::clone(&drained),
            interface: settings.interface.clone(),
        };
        let named = std::thread::Builder::new().name(format!("pcap {}", settings.interface));
        named.spawn(move || thread.run()).map_err(|error| format!("no thread to capture with: {error}"))?;
        Ok(Self { queue, packets, stop, drained })
    }
}

impl Reader for Live {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        self.packets.look_at_clock();
        let poll = loop {
            // Before the queue is looked at: what is handed over in between counts for the next time.
            let drained = self.drained.load(Acquire);
            match self.queue.try_recv() {
                Ok(chunk) => {
                    let chunk = chunk?;
                    let (mut start, mut full) = (0, false);
                    for (ns, wire_len, end) in chunk.heads {
                        full |= self.packets.take(ns, wire_len, &chunk.data[start..end]);
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
    sender: Sender<Result<Chunk, String>>,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    /// Wall clock in ns: all packets that had come by then have been handed over. Time may pass up to here.
    drained: Arc<AtomicI64>,
    interface: String,
}

impl Thread {
    fn run(mut self) {
        let (mut chunk, mut begun, mut asked) = (Chunk::default(), Instant::now(), Instant::now());
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
            if stopping || asked.elapsed() >= STATS {
                self.count();
                asked = Instant::now();
            }
            if !chunk.heads.is_empty() && self.sender.send(Ok(std::mem::take(&mut chunk))).is_err() {
                return;
            }
            if let Some(failure) = failure {
                // Nobody reads any more if this fails.
                let _ = self.sender.send(Err(failure));
                return;
            }
            if stopping {
                return;
            }
            if idle {
                self.drained.store(before, Release);
                std::thread::sleep(SLEEP);
            }
        }
    }

    /// The kernel counts from the start of the capture.
    fn count(&mut self) {
        if let Ok(stats) = self.capture.stats() {
            self.received.store(stats.received.into(), Relaxed);
            self.dropped.store(u64::from(stats.dropped) + u64::from(stats.if_dropped), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
