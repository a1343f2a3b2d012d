//! The streams that timely's communication threads read and write. They never fail.
//!
//! Timely's threads panic when a connection breaks, and take the workers with them. So a [`DataStream`] that breaks tells
//! the watch, discards what is written, and gives nothing to read until the workers have ended. Then it reads as an
//! orderly end: what timely has of a message is filled up with zeros (no worker is left to see it), and the header
//! follows with which timely says that a stream is over.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use timely::communication::allocator::zero_copy::initialize::CommsGuard;
use timely::communication::allocator::zero_copy::stream::Stream;

/// The connections with all processes, by number; none with ourselves.
#[derive(Debug)]
pub(crate) struct Links {
    data: Vec<Option<Arc<TcpStream>>>,
    watch: Vec<Option<TcpStream>>,
    phase: Mutex<Phase>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Phase {
    /// The run was called off: nobody waits for what a peer still has to say.
    aborted: bool,
    /// The workers have ended.
    released: bool,
}

impl Links {
    pub fn new(data: Vec<Option<TcpStream>>, watch: Vec<Option<TcpStream>>) -> Self {
        let data = data.into_iter().map(|socket| socket.map(Arc::new)).collect();
        Self { data, watch, phase: Mutex::default(), changed: Condvar::new() }
    }

    /// For timely, by process.
    pub fn streams(self: &Arc<Self>) -> Vec<Option<DataStream>> {
        let stream = |(process, socket): (usize, &Option<Arc<TcpStream>>)| {
            let socket = Arc::clone(socket.as_ref()?);
            Some(DataStream { process, socket, links: Arc::clone(self), frames: Frames::default(), broken: false })
        };
        self.data.iter().enumerate().map(stream).collect()
    }

    /// The watch's connections, by process.
    pub fn watch(&self) -> &[Option<TcpStream>] {
        &self.watch
    }

    /// The run is called off.
    pub fn abort(&self) {
        self.change(|phase| phase.aborted = true);
    }

    /// The workers have ended.
    pub fn release(&self) {
        self.change(|phase| phase.released = true);
    }

    fn change(&self, change: impl FnOnce(&mut Phase)) {
        let mut phase = self.phase();
        change(&mut phase);
        if phase.aborted && phase.released {
            // Wakes threads that wait for a peer which may never speak again.
            for socket in self.data.iter().flatten() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock()
    }

    fn wait_until_released(&self) {
        self.changed.wait_while(&mut self.phase(), |phase| !phase.released);
    }

    /// The connection for data has broken. Whether the process is lost, or has said why it ends, the watch knows: what it
    /// has sent can still be read there, and then its end is seen too.
    fn broke(&self, process: usize) {
        if let Some(Some(watch)) = self.watch.get(process) {
            let _ = watch.shutdown(Shutdown::Read);
        }
    }
}

/// Keeps timely's communication threads; dropped by timely when the workers have ended.
pub(crate) struct Guard {
    comms: Option<CommsGuard>,
    links: Arc<Links>,
}

impl Guard {
    pub fn new(comms: CommsGuard, links: Arc<Links>) -> Self {
        Self { comms: Some(comms), links }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.links.release();
        let comms = self.comms.take();
        // Waits for the threads, and panics if one of them has panicked; the caller's thread is not to end for that.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(comms))).is_err() {
            tracing::error!("a communication thread ended out of order");
        }
    }
}

/// One direction or both of the connection with a process.
pub(crate) struct DataStream {
    process: usize,
    socket: Arc<TcpStream>,
    links: Arc<Links>,
    frames: Frames,
    broken: bool,
}

impl DataStream {
    fn broke(&mut self) {
        self.broken = true;
        self.links.broke(self.process);
    }
}

impl Read for DataStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.frames.ended {
            // Only the end of the connection may follow. An orderly peer sends it at once.
            let _ = (&*self.socket).read(&mut [0]);
            return Ok(0);
        }
        while !self.broken {
            match (&*self.socket).read(into) {
                Ok(0) => self.broke(),
                Ok(read) => return Ok(self.frames.follow(&into[..read])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broke(),
            }
        }
        self.links.wait_until_released();
        Ok(self.frames.complete(into))
    }
}

impl Write for DataStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.broken {
            match (&*self.socket).write(bytes) {
                Ok(written) if written > 0 || bytes.is_empty() => return Ok(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.broke(),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for DataStream {
    fn try_clone(&self) -> io::Result<Self> {
        let (socket, links) = (Arc::clone(&self.socket), Arc::clone(&self.links));
        Ok(Self { process: self.process, socket, links, frames: self.frames.clone(), broken: self.broken })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // Fails if the peer is gone, which whoever reads will see.
        let _ = self.socket.shutdown(how);
        Ok(())
    }
}

/// Bytes of timely's message header: six numbers of eight bytes, big-endian.
const HEADER: usize = 48;

/// Where in the header the length of what follows stands. A message of length zero is the last one.
const LENGTH: std::ops::Range<usize> = 32..40;

/// Where in timely's messages a stream of bytes is.
#[derive(Clone, Debug)]
struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that are known.
    known: usize,
    /// Bytes of the message that are still to come after its header.
    missing: u64,
    ended: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { header: [0; HEADER], known: 0, missing: 0, ended: false }
    }
}

impl Frames {
    /// Takes note of bytes; returns how many of them there are up to the end of the stream.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.ended {
            let rest = &bytes[at..];
            if self.missing > 0 {
                let step = rest.len().min(usize::try_from(self.missing).unwrap_or(usize::MAX));
                self.missing -= step as u64;
                at += step;
                continue;
            }
            let step = rest.len().min(HEADER - self.known);
            self.header[self.known..self.known + step].copy_from_slice(&rest[..step]);
            self.known += step;
            at += step;
            if self.known == HEADER {
                self.known = 0;
                let length = self.header[LENGTH].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                (self.missing, self.ended) = (length, length == 0);
            }
        }
        at
    }

    /// Puts zeros up to the end of the stream; returns how many.
    fn complete(&mut self, into: &mut [u8]) -> usize {
        into.fill(0);
        self.follow(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u64) -> Vec<u8> {
        let mut bytes = vec![1; HEADER];
        bytes[LENGTH].copy_from_slice(&length.to_be_bytes());
        bytes.resize(HEADER + usize::try_from(length).expect("small"), 9);
        bytes
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let stream = [message(300), message(1), message(0)].concat();
        for step in [1, 7, 48, 1000] {
            let mut frames = Frames::default();
            let taken: usize = stream.chunks(step).map(|bytes| frames.follow(bytes)).sum();
            assert_eq!((taken, frames.ended), (stream.len(), true), "in steps of {step}");
            assert_eq!(frames.follow(b"more"), 0);
        }
    }

    #[test]
    fn a_stream_that_breaks_anywhere_is_completed_to_an_orderly_end() {
        let stream = [message(300), message(5)].concat();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            assert_eq!(frames.follow(&stream[..cut]), cut);
            let mut all = stream[..cut].to_vec();
            let mut zeros = [0; 32];
            while !frames.ended {
                let more = frames.complete(&mut zeros);
                all.extend_from_slice(&zeros[..more]);
            }
            // What timely makes of it: whole messages, the last one of length zero, nothing after it.
            let mut rest = all.as_slice();
            loop {
                let length = rest[LENGTH].iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
                rest = &rest[HEADER + length..];
                if length == 0 {
                    break;
                }
            }
            assert!(rest.is_empty(), "cut at {cut}");
        }
    }
}
