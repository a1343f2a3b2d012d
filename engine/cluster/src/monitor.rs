//! The watch: a connection with each process, over which it says each second that it lives.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::TryFromIntError;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::link::Links;
use crate::{Cluster, Peer};

/// How often a process says that it lives.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// For how many beats in a row a process may be silent. Counted in waits without a byte, not by the clock: a process that
/// was itself stopped for a while finds what its peers have said meanwhile, and does not take them for lost.
const SILENT_BEATS: u32 = 10;

/// The longest text of a failure, in bytes.
const MAX_TEXT: usize = 1024;

const TAG_BEAT: u8 = b'B';
const TAG_STOP: u8 = b'S';
const TAG_NOTE: u8 = b'N';
const TAG_DONE: u8 = b'D';
const TAG_LOST: u8 = b'L';
const TAG_SILENT: u8 = b'Q';
const TAG_FAILED: u8 = b'F';

/// What other processes do to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process was asked to stop: all sources are to end, and what they have received is processed.
    Stopped(Peer),
    /// A process has sent a note with [`Monitor::tell`].
    Told(Peer, Vec<u8>),
    /// A process is gone; what is left of the dataflow would wait for it for ever.
    Lost(Peer),
    /// A process, or the way to it, has been silent for [`Monitor::SILENCE`].
    Silent(Peer),
    /// A process has ended its run with this message, which is fit for a terminal.
    Failed(Peer, String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(peer) => write!(f, "{peer} was asked to stop"),
            Self::Told(peer, note) => write!(f, "{peer} sent a note of {} bytes", note.len()),
            Self::Lost(peer) => write!(f, "{peer} was lost: start all processes again"),
            Self::Silent(peer) => {
                let seconds = Monitor::SILENCE.as_secs();
                write!(f, "{peer} was lost, nothing was heard of it for {seconds} s: start all processes again")
            }
            Self::Failed(peer, message) => write!(f, "{peer} failed: {message}"),
        }
    }
}

/// Watches the other processes. Dropped, it closes the watch, which the others take for a loss unless
/// [`Monitor::finish`] or [`Monitor::fail`] came before.
pub struct Monitor {
    state: Arc<State>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    beats: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
}

struct State {
    cluster: Cluster,
    links: Arc<Links>,
    on_event: Box<dyn Fn(&Event) + Send + Sync>,
    over: Mutex<Over>,
    /// One message at a time, whole.
    writing: Mutex<()>,
}

/// How the run has ended, as far as the watch knows.
#[derive(Default)]
struct Over {
    by: Option<Event>,
    /// We have ended it ourselves: what the peers do now is of no interest.
    own: bool,
}

impl Monitor {
    /// After which silence a process counts as lost.
    pub const SILENCE: Duration = Duration::from_secs(BEAT.as_secs() * SILENT_BEATS as u64);

    pub(crate) fn start(
        cluster: &Cluster,
        links: Arc<Links>,
        on_event: Box<dyn Fn(&Event) + Send + Sync>,
    ) -> io::Result<Self> {
        let (over, writing) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { cluster: cluster.clone(), links, on_event, over, writing });
        let monitor = Self { state: Arc::clone(&state), readers: Mutex::default(), beats: Mutex::default() };
        for process in (0..cluster.processes()).filter(|process| *process != cluster.process) {
            let state = Arc::clone(&state);
            let name = format!("watch-{process}");
            let reader = thread::Builder::new().name(name).spawn(move || state.read(process))?;
            lock(&monitor.readers).push(reader);
        }
        let (until, ended) = mpsc::channel();
        let beats = thread::Builder::new().name("watch".into()).spawn(move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                state.tell(&[TAG_BEAT]);
            }
        })?;
        *lock(&monitor.beats) = Some((until, beats));
        Ok(monitor)
    }

    /// Asks the other processes to stop. To be called when this process was asked, not when a peer has passed it on.
    pub fn stop(&self) {
        self.state.tell(&[TAG_STOP]);
    }

    /// Sends a note to the other processes, such as how far this one's sources are. May block for a second if the network
    /// does not take it: not to be called by a worker.
    ///
    /// # Errors
    /// If the note is longer than 65,535 bytes.
    pub fn tell(&self, note: &[u8]) -> Result<(), TryFromIntError> {
        let length = u16::try_from(note.len())?;
        self.state.tell(&[&[TAG_NOTE], length.to_be_bytes().as_slice(), note].concat());
        Ok(())
    }

    /// Tells the other processes that this one ends the run, and why. To be called before this process's workers give up:
    /// their peers would wait for them for ever.
    pub fn fail(&self, message: &str) {
        let first = {
            let mut over = lock(&self.state.over);
            over.by.is_none() && !std::mem::replace(&mut over.own, true)
        };
        if first {
            self.state.tell(&ending(TAG_FAILED, self.state.cluster.process, message));
            self.state.links.abort();
        }
    }

    /// To be called when this process has ended well: says so to the others, and waits until they have ended too.
    ///
    /// # Errors
    /// How it ended instead, if another process was lost or has failed. The event has been given to `on_event` as well.
    pub fn finish(&self) -> Result<(), Event> {
        self.state.tell(&[TAG_DONE]);
        self.join_readers();
        match lock(&self.state.over).by.clone() {
            Some(event) => Err(event),
            None => Ok(()),
        }
    }

    /// How the run has ended, if a process was lost or has failed.
    pub fn ended_by(&self) -> Option<Event> {
        lock(&self.state.over).by.clone()
    }

    fn join_readers(&self) {
        let readers = std::mem::take(&mut *lock(&self.readers));
        for reader in readers {
            if reader.join().is_err() {
                tracing::error!("a thread of the watch panicked");
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        lock(&self.state.over).own = true;
        if let Some((until, beats)) = lock(&self.beats).take() {
            drop(until);
            let _ = beats.join();
        }
        for watch in self.state.links.watch().iter().flatten() {
            let _ = watch.shutdown(Shutdown::Both);
        }
        self.join_readers();
    }
}

impl State {
    /// Reads what a process says until it has ended one way or another.
    fn read(&self, process: usize) {
        let Some(Some(watch)) = self.links.watch().get(process).map(Option::as_ref) else { return };
        loop {
            match self.message(process, watch) {
                Ok(Message::Beat) => {}
                Ok(Message::Stop) => (self.on_event)(&Event::Stopped(self.cluster.peer(process))),
                Ok(Message::Note(note)) => (self.on_event)(&Event::Told(self.cluster.peer(process), note)),
                Ok(Message::Done) => return,
                Ok(Message::Over(event)) => return self.end(event),
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return self.end(Event::Silent(self.cluster.peer(process)));
                }
                Err(_) => return self.end(Event::Lost(self.cluster.peer(process))),
            }
        }
    }

    fn message(&self, from: usize, watch: &TcpStream) -> io::Result<Message> {
        Ok(match patiently(watch)? {
            [TAG_BEAT] => Message::Beat,
            [TAG_STOP] => Message::Stop,
            [TAG_DONE] => Message::Done,
            [TAG_NOTE] => Message::Note(text(watch)?),
            [tag @ (TAG_LOST | TAG_SILENT | TAG_FAILED)] => {
                let process = u32::from_be_bytes(patiently(watch)?);
                let text = text(watch)?;
                let process = usize::try_from(process).unwrap_or(usize::MAX);
                if process >= self.cluster.processes() {
                    return Err(ErrorKind::InvalidData.into());
                }
                // Who takes us for lost is out of our reach.
                let about_us = process == self.cluster.process && tag != TAG_FAILED;
                let peer = self.cluster.peer(if about_us { from } else { process });
                Message::Over(match tag {
                    TAG_LOST => Event::Lost(peer),
                    TAG_SILENT => Event::Silent(peer),
                    _ => Event::Failed(peer, printable(&text)),
                })
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }

    /// The run is over, unless it was already. Passed on, so that all processes name the same cause.
    fn end(&self, event: Event) {
        {
            let mut over = lock(&self.over);
            if over.own || over.by.is_some() {
                return;
            }
            over.by = Some(event.clone());
        }
        match &event {
            Event::Stopped(_) | Event::Told(..) => {}
            Event::Lost(peer) => self.tell(&ending(TAG_LOST, peer.process, "")),
            Event::Silent(peer) => self.tell(&ending(TAG_SILENT, peer.process, "")),
            Event::Failed(peer, message) => self.tell(&ending(TAG_FAILED, peer.process, message)),
        }
        self.links.abort();
        (self.on_event)(&event);
    }

    /// Sends a message to all processes. That one cannot be told is seen by whoever reads from it.
    fn tell(&self, message: &[u8]) {
        let _whole = lock(&self.writing);
        for mut watch in self.links.watch().iter().flatten() {
            let _ = watch.write_all(message);
        }
    }
}

enum Message {
    Beat,
    Stop,
    Note(Vec<u8>),
    Done,
    Over(Event),
}

/// A message that ends the run: `process` was lost or has failed.
fn ending(tag: u8, process: usize, text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut message = vec![tag];
    message.extend_from_slice(&u32::try_from(process).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(text.as_bytes());
    message
}

/// Reads a length and so many bytes.
fn text(watch: &TcpStream) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::from(u16::from_be_bytes(patiently(watch)?))];
    fill(watch, &mut text)?;
    Ok(text)
}

fn patiently<const N: usize>(watch: impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(watch, &mut bytes)?;
    Ok(bytes)
}

/// Reads so many bytes; [`ErrorKind::TimedOut`] after a silence of so many beats. The socket's own time limit is a beat.
fn fill(mut watch: impl Read, bytes: &mut [u8]) -> io::Result<()> {
    let (mut at, mut silent) = (0, 0);
    while at < bytes.len() {
        match watch.read(&mut bytes[at..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => (at, silent) = (at + read, 0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                silent += 1;
                if silent >= SILENT_BEATS {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Text from the network, fit for a terminal.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let message = ending(TAG_FAILED, 3, &"é".repeat(2000));
        assert_eq!(message[..7], [TAG_FAILED, 0, 0, 0, 3, 4, 0]);
        assert_eq!(printable(&message[7..]), "é".repeat(512));
        assert_eq!(printable(b"a\x1b[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }

    #[test]
    fn a_silence_ends_after_so_many_beats_and_a_byte_begins_it_anew() {
        struct Script(Vec<Option<u8>>);
        impl Read for Script {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                match self.0.pop() {
                    Some(Some(byte)) => {
                        into[0] = byte;
                        Ok(1)
                    }
                    _ => Err(ErrorKind::WouldBlock.into()),
                }
            }
        }
        let mut script = vec![None; 9];
        script.push(Some(2));
        script.extend(vec![None; 9]);
        script.push(Some(1));
        let mut script = Script(script);
        assert_eq!(patiently(&mut script).expect("two bytes"), [1, 2]);
        assert_eq!(patiently::<1>(&mut script).expect_err("silent").kind(), ErrorKind::TimedOut);
    }
}
