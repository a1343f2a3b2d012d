//! Bytes of a named pipe or of standard input, read ahead by a thread, because reading may block.
//!
//! What the thread has taken out of a pipe nobody else can read. So when the source is told to stop, the thread takes no
//! more than the rest of a line that it has begun, and what it has taken is still processed: the next run, or the source
//! that takes this one's place, goes on where the next line begins.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::tail;

/// Bytes of one read.
const CHUNK: usize = 64 << 10;

/// Chunks that the thread may be ahead.
const AHEAD: usize = 16;

/// The longest that a stopped source waits for its thread.
const DRAIN: Duration = Duration::from_secs(1);

/// The longest that a stopped thread waits for the next bytes of a line that has begun, and the most that it takes of it.
const REST: (Duration, usize) = (Duration::from_millis(100), 1 << 20);

/// The thread is opening the pipe: it holds nothing.
const OPENING: u8 = 0;
/// It reads a pipe, and ends soon after it was told to.
const READING: u8 = 1;
/// It reads what is no pipe, such as a file or a terminal, and may be in a call that nothing ends.
const BLOCKED: u8 = 2;
/// It was told to stop.
const STOPPED: u8 = 3;

/// What a read says.
pub(super) enum Got {
    Chunk(Vec<u8>),
    Nothing,
    End,
}

/// The reader's end.
pub(super) struct Pipe {
    queue: Receiver<io::Result<Vec<u8>>>,
    thread: Arc<Thread>,
    /// Until when what the thread has taken is waited for.
    until: Option<Instant>,
}

/// What the thread is told and tells.
struct Thread {
    state: AtomicU8,
    stop: Notify,
}

impl Pipe {
    /// Reads a named pipe, or standard input if there is no path.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let (sender, queue) = bounded(AHEAD);
        let thread = Arc::new(Thread { state: AtomicU8::new(OPENING), stop: Notify::new() });
        let (path, own) = (path.map(Path::to_owned), Arc::clone(&thread));
        let builder = std::thread::Builder::new().name(if path.is_some() { "pipe" } else { "stdin" }.to_owned());
        let work = move || {
            if let Err(error) = own.run(path.as_deref(), &sender) {
                // Nobody reads any more if this fails.
                let _ = sender.send(Err(error));
            }
        };
        builder.spawn(work).map_err(|error| format!("no thread to read with: {error}"))?;
        Ok(Self { queue, thread, until: None })
    }

    /// The next bytes, if there are any.
    pub fn read(&mut self) -> Result<Got, String> {
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
        let waits = self.thread.state.swap(STOPPED, SeqCst) == READING;
        self.until = Some(Instant::now() + if waits { DRAIN } else { Duration::ZERO });
        self.thread.stop.notify_one();
    }

    /// Whether what was taken before [`Pipe::stop`] may still come.
    pub fn is_draining(&self) -> bool {
        !self.queue.is_empty() || self.until.is_some_and(|until| Instant::now() < until)
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
        // Opening waits for a writer.
        let file = path.map(File::open).transpose()?;
        let descriptor = file.as_ref().map_or(0, AsRawFd::as_raw_fd);
        let again = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
        if std::fs::metadata(&again).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let _entered = runtime.enter();
            // Opened once more, so that not to block is a matter of this end alone. The pipe may be another user's.
            if let Ok(pipe) = pipe::OpenOptions::new().open_receiver(&again) {
                return match self.begins(READING) {
                    true => runtime.block_on(self.receive(pipe, sender)),
                    false => Ok(()),
                };
            }
        }
        if !self.begins(BLOCKED) {
            return Ok(());
        }
        match file {
            Some(file) => self.block(file, sender),
            None => self.block(io::stdin(), sender),
        }
    }

    /// False if it was told to stop before it has taken anything.
    fn begins(&self, state: u8) -> bool {
        self.state.compare_exchange(OPENING, state, SeqCst, SeqCst).is_ok()
    }

    fn is_stopped(&self) -> bool {
        self.state.load(SeqCst) == STOPPED
    }

    async fn receive(&self, pipe: pipe::Receiver, sender: &Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut last = b'\n';
        while !self.is_stopped() {
            tokio::select! {
                () = self.stop.notified() => continue,
                ready = pipe.readable() => ready?,
            }
            if self.is_stopped() {
                break;
            }
            match pipe.try_read(&mut chunk) {
                Ok(0) => return Ok(()),
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
        let rest = rest(&pipe, last).await?;
        if !rest.is_empty() {
            // Nobody reads any more if this fails.
            let _ = sender.send(Ok(rest));
        }
        Ok(())
    }

    fn block(&self, mut input: impl Read, sender: &Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while !self.is_stopped() {
            let bytes = tail::read(&mut input, &mut chunk)?;
            if bytes == 0 || sender.send(Ok(chunk[..bytes].to_vec())).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The rest of a line of which `last` is the latest byte that was read, and no byte of the next.
async fn rest(pipe: &pipe::Receiver, mut last: u8) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    while last != b'\n' && rest.len() < REST.1 {
        let Ok(ready) = tokio::time::timeout(REST.0, pipe.readable()).await else { break };
        ready?;
        let mut byte = [0];
        match pipe.try_read(&mut byte) {
            // The writer's last line has ended with the pipe.
            Ok(0) => byte[0] = b'\n',
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error),
        }
        last = byte[0];
        rest.push(last);
    }
    Ok(rest)
}
