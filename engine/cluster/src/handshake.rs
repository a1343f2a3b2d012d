//! What two processes say to each other over a new connection: first who they are, and at last that each of them is
//! connected with all others.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::hello::{Hello, LENGTH, Purpose};
use crate::hosts::resolve;
use crate::monitor::BEAT;
use crate::{Cluster, ConnectError};

/// How often is looked for news.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// How long a connection may take to say who it is.
pub(crate) const INTRODUCTION: Duration = Duration::from_secs(5);

/// How long a call may take to be answered by the host; all else waits meanwhile.
const CALL: Duration = Duration::from_millis(500);

/// The byte on the watch that says: I am connected with everyone.
const READY: u8 = b'R';

/// A connection that has not said yet who it is.
pub(crate) struct Pending {
    pub socket: TcpStream,
    said: [u8; LENGTH],
    length: usize,
    since: Instant,
    /// Whom we have called, and for what. Otherwise we were called.
    pub called: Option<(usize, Purpose)>,
}

/// What was heard on a connection.
pub(crate) enum Heard {
    Nothing,
    End,
    /// `None` for something that is not a hello.
    Hello(Option<Hello>),
}

impl Pending {
    pub fn new(socket: TcpStream, called: Option<(usize, Purpose)>) -> Self {
        Self { socket, said: [0; LENGTH], length: 0, since: Instant::now(), called }
    }

    /// Whether it has had enough time to say who it is.
    pub fn is_overdue(&self) -> bool {
        self.since.elapsed() >= INTRODUCTION
    }

    /// Reads what there is of the hello.
    pub fn listen(&mut self) -> Heard {
        while self.length < LENGTH {
            match self.socket.read(&mut self.said[self.length..]) {
                Ok(0) => return Heard::End,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
        }
        Heard::Hello(Hello::from_bytes(&self.said))
    }
}

/// Connects and says who we are. The hello fits into the buffer of a new connection, so this does not wait.
pub(crate) fn call(address: &str, hello: &Hello) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in resolve(address)? {
        match dial(&address) {
            Ok(mut socket) => {
                socket.write_all(&hello.to_bytes())?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn dial(address: &SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(address, CALL)?;
    // A call to a port of this machine on which nobody listens may be given that very port, and then reaches itself.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether the other side has closed the connection. What it may have said is left.
pub(crate) fn is_gone(socket: &TcpStream) -> bool {
    match socket.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// The two connections with a process.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For timely.
    pub data: TcpStream,
    /// For the watch.
    pub watch: TcpStream,
}

impl Sockets {
    /// From now on reads and writes wait: those of the watch for a while, those of timely for as long as it takes.
    pub fn new(data: TcpStream, watch: TcpStream) -> io::Result<Self> {
        for socket in [&data, &watch] {
            socket.set_nonblocking(false)?;
            socket.set_nodelay(true)?;
        }
        watch.set_write_timeout(Some(BEAT))?;
        watch.set_read_timeout(Some(LOOK))?;
        Ok(Self { data, watch })
    }
}

/// Says to all processes that this one is connected with everyone, and waits until each of them has said so too.
pub(crate) fn wait_until_all_are_ready(
    cluster: &Cluster,
    sockets: &[Option<Sockets>],
    limit: Duration,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), ConnectError> {
    let start = Instant::now();
    let watches = || sockets.iter().enumerate().filter_map(|(process, s)| Some((process, &s.as_ref()?.watch)));
    for (process, mut watch) in watches() {
        watch.write_all(&[READY]).map_err(|_| ConnectError::Lost(cluster.peer(process)))?;
    }
    for (process, watch) in watches() {
        while !is_ready(watch).map_err(|_| ConnectError::Lost(cluster.peer(process)))? {
            if cancelled() {
                return Err(ConnectError::Cancelled);
            }
            if start.elapsed() >= limit {
                let why = "is connected, but waits for others".to_owned();
                return Err(ConnectError::Missing { waited: limit, missing: vec![(cluster.peer(process), why)] });
            }
        }
        watch.set_read_timeout(Some(BEAT)).map_err(|error| ConnectError::Socket(error.to_string()))?;
    }
    Ok(())
}

/// Waits for a moment for a process to say that it is connected with everyone. Anything else than that is an error.
fn is_ready(mut watch: &TcpStream) -> io::Result<bool> {
    let mut said = [0];
    match watch.read(&mut said) {
        Ok(1) if said == [READY] => Ok(true),
        Ok(_) => Err(ErrorKind::InvalidData.into()),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        },
    }
}
