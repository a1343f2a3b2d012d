//! Hellos of interfaces, until the time or the number of hellos is over, or until SIGINT or SIGTERM.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use client_hello::{Counters, Frame, HelloExtractor};
use command_line::Exit;
use engine::contract::wall_clock_ns;
use engine::text::line;
use pcap::{Active, Capture};
use tokio::signal::unix::{SignalKind, signal};

use super::{Options, Stop, Work, complain};
use crate::source::bpf::{Filter, message};
use crate::source::capture::{DRAIN, Settings};
use crate::source::packets::timestamp;
use crate::tls::hint;

/// Packets of one interface before the others are looked at.
const BURST: usize = 4096;

/// Packets that the kernel has not handed over are at most this old, in ns.
const LATENESS_NS: i64 = 200_000_000;

/// How long to sleep when no interface has packets.
const SLEEP: Duration = Duration::from_millis(5);

/// When a capture ends.
struct Ending {
    /// Set by the first signal.
    signalled: Arc<AtomicBool>,
    /// When the time for it is over.
    deadline: Option<Instant>,
    /// Since when it is to end.
    since: Option<Instant>,
}

impl Ending {
    /// Whether the capture is to end.
    fn is_due(&self) -> bool {
        self.signalled.load(Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether it can, now that it is to: what the kernel has received is still decoded. `idle` if nothing came just now.
    fn is_drained(&mut self, idle: bool) -> bool {
        let since = self.since.get_or_insert_with(Instant::now).elapsed();
        since >= DRAIN[0] && idle || since >= DRAIN[1]
    }
}

impl<W: Write> Work<W> {
    /// Interfaces side by side.
    pub(super) fn interfaces(&mut self, options: &Options) -> Result<Exit, Stop> {
        let mut captures = settings(options).open()?;
        // Before a thread is started, which would keep what it has.
        if let Err(error) = engine::privileges::give_up_all() {
            complain(&error, Exit::Ok);
        }
        let signalled =
            signalled().map_err(|error| Stop::Capture(format!("signals cannot be handled: {error}").into()))?;
        // Standard error may be gone together with the terminal.
        let _ = writeln!(io::stderr(), "capturing on {}; ends with Ctrl-C", line(&options.interface.join(", ")));
        let mut extractor = self.begin(options);
        let deadline = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let ending = Ending { signalled, deadline, since: None };
        let captured = self.capture(&mut captures, &options.interface, &mut extractor, ending);
        let outcome = captured.and_then(|()| self.end(&mut extractor));
        self.report(&mut captures, &options.interface, &extractor);
        outcome.map(|()| Exit::Ok)
    }

    /// Takes packets until the capture ends.
    fn capture(
        &mut self,
        captures: &mut [Capture<Active>],
        interfaces: &[String],
        extractor: &mut HelloExtractor,
        mut ending: Ending,
    ) -> Result<(), Stop> {
        let mut outcome = Ok(());
        while outcome.is_ok() && self.left > 0 {
            let ends = ending.is_due();
            let mut idle = true;
            for (capture, interface) in captures.iter_mut().zip(interfaces) {
                if outcome.is_err() || self.left == 0 {
                    break;
                }
                if let Some(taken) = self.burst(capture, interface, extractor) {
                    outcome = taken;
                    idle = false;
                }
            }
            // What has waited for an acknowledgement that does not come leaves by the clock while no packet tells the time.
            if idle {
                let until = wall_clock_ns().saturating_sub(LATENESS_NS);
                outcome = outcome.and_then(|()| self.advance(extractor, until));
            }
            outcome = outcome.and_then(|()| Ok(self.output.flush()?));
            if ends && ending.is_drained(idle) {
                break;
            }
            if idle {
                std::thread::sleep(SLEEP);
            }
        }
        outcome
    }

    /// Takes packets of one interface, [`BURST`] at most. `None` if there is none.
    fn burst(
        &mut self,
        capture: &mut Capture<Active>,
        interface: &str,
        extractor: &mut HelloExtractor,
    ) -> Option<Result<(), Stop>> {
        let (linktype, number) = (capture.get_datalink().0, self.interfaces.number(Some(interface)));
        let mut outcome = None;
        for _ in 0..BURST {
            let taken = match capture.next_packet() {
                Ok(packet) => {
                    let whole = Frame::whole(timestamp(packet.header), linktype, packet.data);
                    self.packet(extractor, &Frame { wire_len: packet.header.len, interface: number, ..whole })
                }
                Err(pcap::Error::TimeoutExpired) => break,
                Err(error) => {
                    let text = format!("the capture on {interface} ended: {}", message(&error));
                    Err(Stop::Capture(text.into()))
                }
            };
            let is_over = self.left == 0 || taken.is_err();
            outcome = Some(taken);
            if is_over {
                break;
            }
        }
        outcome
    }

    /// Says on standard error what became of the packets.
    fn report(&self, captures: &mut [Capture<Active>], interfaces: &[String], extractor: &HelloExtractor) {
        let mut kernel = Vec::with_capacity(captures.len());
        for (capture, interface) in captures.iter_mut().zip(interfaces) {
            match capture.stats() {
                Ok(stats) => kernel.push((interface.as_str(), [stats.received, stats.dropped, stats.if_dropped])),
                Err(error) => {
                    complain(&format!("no counters of {interface}: {}", message(&error)), Exit::Ok);
                }
            }
        }
        let total = |nth: usize| kernel.iter().map(|(_, counts)| u64::from(counts[nth])).sum::<u64>();
        if self.counters {
            let named = [("kernel_received", total(0)), ("kernel_dropped", total(1)), ("interface_dropped", total(2))];
            self.count(extractor, &named);
        } else {
            let _ = io::stderr().write_all(summary(&kernel, extractor.counters()).as_bytes());
        }
    }
}

/// How the interfaces are opened.
fn settings(options: &Options) -> Settings {
    Settings {
        interfaces: options.interface.clone(),
        filter: Filter::new(options.filter.clone(), Vec::new()),
        snaplen: options.snaplen.into(),
        promiscuous: options.promiscuous,
        buffer_size: i32::try_from(options.buffer_size).unwrap_or(i32::MAX),
    }
}

/// What a capture has seen, for people.
fn summary(kernel: &[(&str, [u32; 3])], counters: &Counters) -> String {
    let mut text = String::new();
    for (interface, [received, dropped, by_interface]) in kernel {
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{}: {received} packets received, {dropped} dropped by the kernel, {by_interface} dropped by the interface",
            line(interface)
        );
    }
    let _ = writeln!(text, "{} packets decoded, {} hellos", counters.packets_received, counters.hellos);
    let rejects: Vec<String> = counters
        .iter()
        .filter(|(name, count)| *count > 0 && (REJECTS.contains(name) || name.starts_with("undecoded_")))
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !rejects.is_empty() {
        let _ = writeln!(text, "rejected or given up: {}", rejects.join(", "));
    }
    if let Some(hint) = hint::no_hello(counters) {
        let _ = writeln!(text, "{hint}");
    }
    text
}

/// Counters of what could have been a hello and is none.
const REJECTS: [&str; 14] = [
    "unknown_link",
    "truncated",
    "malformed",
    "fragments_incomplete",
    "quic_undecryptable",
    "overlap_conflicts",
    "segment_exceeded_count",
    "buffer_exceeded_count",
    "flows_evicted_syn",
    "flows_evicted",
    "incomplete_hellos",
    "not_tls",
    "malformed_hellos",
    "other_ports",
];

/// A flag that the first SIGINT or SIGTERM sets; the second one ends the process.
fn signalled() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let flag = Arc::clone(&stop);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if flag.swap(true, Relaxed) {
                    std::process::exit(i32::from(Exit::Aborted as u8));
                }
            }
        });
    })?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_interfaces_and_only_rejects_that_there_were() {
        let counters = Counters { packets_received: 9, hellos: 2, malformed: 1, non_ip: 3, ..Counters::default() };
        assert_eq!(
            summary(&[("eth0", [10, 1, 0])], &counters),
            "eth0: 10 packets received, 1 dropped by the kernel, 0 dropped by the interface\n\
             9 packets decoded, 2 hellos\n\
             rejected or given up: malformed 1\n"
        );
    }

    #[test]
    fn rejects_are_counters() {
        let counters = Counters::default();
        assert!(REJECTS.iter().all(|reject| counters.iter().any(|(name, _)| name == *reject)));
    }
}
