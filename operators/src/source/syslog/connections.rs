//! Connections, each with messages one after the other.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::framing::Framing;
use super::receive::{Busy, LOOK, Shared};

/// Bytes of one read.
const READ: usize = 64 << 10;

/// Accepts connections over TCP until it is ended.
pub(super) async fn accept_tcp(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((_, sender)) if !shared.limits.allows(sender.ip()) => {
                shared.senders_refused.fetch_add(1, Relaxed);
            }
            Ok((stream, _)) => begin(Connection::Tcp(stream), &shared),
            Err(error) => rest(&error).await?,
        }
    }
}

/// Accepts connections over a unix socket until it is ended.
pub(super) async fn accept_unix(listener: UnixListener, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => begin(Connection::Unix(stream), &shared),
            Err(error) => rest(&error).await?,
        }
    }
}

/// After an error of one connection, or while there are too many open files: goes on a little later.
async fn rest(error: &io::Error) -> io::Result<()> {
    tracing::warn!(%error, "a connection is not accepted");
    tokio::time::sleep(LOOK).await;
    Ok(())
}

/// Reads a connection, unless there are too many.
fn begin(connection: Connection, shared: &Arc<Shared>) {
    if shared.open.load(Relaxed) >= shared.limits.max_connections {
        shared.connections_refused.fetch_add(1, Relaxed);
        return;
    }
    shared.open.fetch_add(1, Relaxed);
    shared.connections.fetch_add(1, Relaxed);
    tokio::spawn(read_connection(connection, Open(Arc::clone(shared)), Framing::new(shared.limits.max_message)));
}

/// A connection, which counts for as long as it is there.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }
}

/// What a connection has sent and what no line feed has ended yet; it is a message when the connection ends, however it does.
struct Rest(Framing, Arc<Shared>);

impl Drop for Rest {
    fn drop(&mut self) {
        let Self(framing, shared) = self;
        framing.finish(|message| shared.take(message));
    }
}

async fn read_connection(connection: Connection, open: Open, framing: Framing) {
    let shared = Arc::clone(&open.0);
    let mut rest = Rest(framing, Arc::clone(&shared));
    let mut bytes = vec![0; READ];
    let mut stopping = shared.stopping.subscribe();
    let mut is_last = false;
    while !is_last {
        let woken = async {
            tokio::select! {
                biased;
                readable = connection.readable() => readable.map(|()| false),
                _ = stopping.wait_for(|stops| *stops) => Ok(true),
            }
        };
        match tokio::time::timeout(shared.limits.idle, woken).await {
            Err(_) => {
                shared.connections_idle.fetch_add(1, Relaxed);
                return;
            }
            Ok(Err(_)) => return,
            Ok(Ok(stops)) => is_last = stops,
        }
        let _busy = Busy::new(&shared);
        loop {
            match connection.try_read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => rest.0.push(&bytes[..read], |message| shared.take(message)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Its sender has gone.
                Err(_) => return,
            }
            tokio::task::coop::consume_budget().await;
        }
    }
}
