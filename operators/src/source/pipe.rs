//! Bytes of a named pipe or of standard input, read ahead by a thread, because reading may block.
//!
//! What the thread has taken out of a pipe nobody else can read. So when the source is told to stop, the thread takes no
//! more than the rest of a line that it has begun, and what it has taken is still processed: the next run, or the source
//! that takes this one's place, goes on where the next line begins.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicI64, AtomicU8};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use engine::contract::wall_clock_ns;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::chunks::Got;
use super::tail;

/// Bytes of one read.
const CHUNK: usize = 64 << 10;

/// Chunks that the thread may be ahead.
const AHEAD: usize = 16;

/// The longest that a stopped thread waits for the rest of a line that has begun, and the most that it takes of it.
const REST: (Duration, usize) = (Duration::from_millis(500), 1 << 20);

/// The longest that it takes to open a pipe that has a writer.
const OPENS: Duration = Duration::from_secs(1);

/// How often the thread says that there is nothing to read.
const LOOK: Duration = Duration::from_millis(50);

/// The thread is opening the pipe: it holds nothing.
const OPENING: u8 = 0;
/// It reads a pipe, and ends soon after it was told to.
const READING: u8 = 1;
/// It reads what is no pipe, such as a file or a terminal, and may be in a call that nothing ends.
const BLOCKED: u8 = 2;
/// It was told to stop.
const STOPPED: u8 = 3;

/// The reader's end.
pub(super) struct Pipe {
    queue: Receiver<io::Result<Vec<u8>>>,
    thread: Arc<Thread>,
    /// The thread will end: all that it has taken is waited for.
    ends: bool,
    drained: i64,
    since: Instant,
}

/// What the thread is told and tells.
struct Thread {
    state: AtomicU8,
    stop: Notify,
    /// Wall clock in ns: all that was in the pipe by then has been handed over. 0 until there was nothing to read.
    drained: AtomicI64,
}

impl Pipe {
    /// Reads a named pipe, or standard input if there is no path.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let (sender, queue) = bounded(AHEAD);
        let thread =
            Arc::new(Thread { state: AtomicU8::new(OPENING), stop: Notify::new(), drained: AtomicI64::new(0) });
        let (path, own) = (path.map(Path::to_owned), Arc::clone(&thread));
        let builder = std::thread::Builder::new().name(if path.is_some() { "pipe" } else { "stdin" }.to_owned());
        let work = move || {
            if let Err(error) = own.run(path.as_deref(), &sender) {
                // Nobody reads any more if this fails.
                let _ = sender.send(Err(error));
            }
        };
        builder.spawn(work).map_err(|error| format!("no thread to read with: {error}"))?;
        Ok(Self { queue, thread, ends: false, drained: 0, since: Instant::now() })
    }

    /// The next bytes, if there are any.
    pub fn read(&mut self) -> Result<Got, String> {
        // Before the queue is looked at: what is handed over in between counts for the next time.
        self.drained = self.thread.drained.load(Acquire);
        match self.queue.try_recv() {
            Ok(Ok(chunk)) => Ok(Got::Chunk(chunk)),
            Ok(Err(error)) => Err(format!("the input cannot be read: {error}")),
            Err(TryRecvError::Empty) => Ok(Got::Nothing),
            Err(TryRecvError::Disconnected) => Ok(Got::End),
        }
    }

    /// Takes no more out of the pipe.
    pub fn stop(&mut self) {
        // A thread that is still opening the pipe, or that nothing can tell, is not waited for.
        self.ends |= self.thread.state.swap(STOPPED, SeqCst) == READING;
        self.thread.stop.notify_one();
    }

    /// Whether what was taken before [`Pipe::stop`] may still come; [`Got::End`] says when nothing does any more.
    pub fn is_draining(&self) -> bool {
        self.ends || !self.queue.is_empty()
    }

    /// By when, in ns of the wall clock, all that had been written was read, if the last read found nothing. What waits in
    /// the pipe is not late because nobody read it. `None` if that is not known yet.
    pub fn drained(&self, now: i64) -> Option<i64> {
        match self.thread.state.load(SeqCst) {
            READING => Some(self.drained).filter(|at| *at > 0),
            // What takes so long has no writer, and nothing to read.
            OPENING => Some(now).filter(|_| self.since.elapsed() > OPENS),
            _ => Some(now),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.thread.state.store(STOPPED, SeqCst);
        self.thread.stop.notify_one();
    }
}

impl Thread {
    fn run(&self, path: Option<&Path>, sender: &Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        let file = match path {
            // Waits for a writer.
            Some(path) => File::open(path)?,
            None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        };
        let is_pipe = file.metadata()?.file_type().is_fifo();
        if !self.begins(if is_pipe { READING } else { BLOCKED }) {
            return Ok(());
        }
        if !is_pipe {
            return self.block(file, sender);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let pipe = pipe::Receiver::from_file(file)?;
            let received = self.receive(&pipe, sender).await;
            // Standard input may be others' too.
            pipe.into_blocking_fd()?;
            received
        })
    }

    /// False if it was told to stop before it has taken anything.
    fn begins(&self, state: u8) -> bool {
        self.state.compare_exchange(OPENING, state, SeqCst, SeqCst).is_ok()
    }

    fn is_stopped(&self) -> bool {
        self.state.load(SeqCst) == STOPPED
    }

    async fn receive(&self, pipe: &pipe::Receiver, sender: &Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut last = b'\n';
        while !self.is_stopped() {
            let before = wall_clock_ns();
            tokio::select! {
                biased;
                () = self.stop.notified() => break,
                ready = pipe.readable() => ready?,
                () = tokio::time::sleep(LOOK) => {
                    self.drained.store(before, Release);
                    continue;
                }
            }
            if self.is_stopped() {
                break;
            }
            match pipe.try_read(&mut chunk) {
                Ok(0) => {
                    end(last, sender);
                    return Ok(());
                }
                Ok(bytes) => {
                    last = chunk[bytes - 1];
                    if sender.send(Ok(chunk[..bytes].to_vec())).is_err() {
                        return Ok(());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        let mut text = Vec::new();
        // What has come of it by then is all there is.
        let _ = tokio::time::timeout(REST.0, rest(pipe, last, &mut text)).await;
        if !text.is_empty() {
            // Nobody reads any more if this fails.
            let _ = sender.send(Ok(text));
        }
        Ok(())
    }

    fn block(&self, mut input: impl Read, sender: &Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut last = b'\n';
        while !self.is_stopped() {
            let bytes = tail::read(&mut input, &mut chunk)?;
            if bytes == 0 {
                end(last, sender);
                break;
            }
            last = chunk[bytes - 1];
            if sender.send(Ok(chunk[..bytes].to_vec())).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The last line of an input that has ended needs no line feed.
fn end(last: u8, sender: &Sender<io::Result<Vec<u8>>>) {
    if last != b'\n' {
        // Nobody reads any more if this fails.
        let _ = sender.send(Ok(b"\n".to_vec()));
    }
}

/// Takes the rest of a line of which `last` is the latest byte that was read, and no byte of the next.
async fn rest(pipe: &pipe::Receiver, mut last: u8, text: &mut Vec<u8>) -> io::Result<()> {
    while last != b'\n' && text.len() < REST.1 {
        pipe.readable().await?;
        let mut byte = [0];
        match pipe.try_read(&mut byte) {
            // The line has ended with its writer.
            Ok(0) => byte[0] = b'\n',
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error),
        }
        last = byte[0];
        text.push(last);
    }
    Ok(())
}
