//! Connections: how many, and how long each may take for what it does.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::process::Client;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);

/// How long a client may take nothing of what is sent.
const STALLED: Duration = Duration::from_secs(15);

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// How long to wait where the system has no descriptor for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How long requests under way may take when the service ends.
const GRACE: Duration = Duration::from_secs(5);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

/// Serves `app` until `shutdown` is done and the requests under way are answered, to at most so many connections, of which a
/// client may have a quarter. More wait until others have ended; a client with too many is hung up on.
///
/// # Errors
/// If the listener fails.
pub async fn listen(
    listener: TcpListener,
    app: Router,
    connections: usize,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(connections.max(4)));
    let of_one = Arc::new(OfOne { most: (connections / 4).max(1), open: Mutex::default() });
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            () = &mut shutdown => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as too many open files: those that are open end in a while. The run keeps its own.
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        let Some(counted) = OfOne::count(&of_one, Client::of(Some(peer.ip()))) else { continue };
        let connection = graceful.watch(connection(stream, peer, app.clone()));
        tokio::spawn(async move {
            let _place = (place, counted);
            // What a client does to its connection is no fault of ours.
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection has ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

type Connection = http1::Connection<TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>, TowerToHyperService<Router>>;

fn connection(stream: TcpStream, peer: SocketAddr, app: Router) -> Connection {
    // A connection without it works too.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let service = TowerToHyperService::new(app.layer(Extension(Peer(peer))));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}

/// Connections by client.
#[derive(Debug)]
struct OfOne {
    most: usize,
    open: Mutex<HashMap<Client, usize>>,
}

/// One of them.
#[derive(Debug)]
struct Counted {
    all: Arc<OfOne>,
    client: Client,
}

impl OfOne {
    /// Counts a connection until the value is dropped; `None` if the client has too many.
    fn count(all: &Arc<Self>, client: Client) -> Option<Counted> {
        let mut open = all.open.lock();
        let count = open.entry(client).or_default();
        if *count >= all.most {
            return None;
        }
        *count += 1;
        Some(Counted { all: Arc::clone(all), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}
