//! Sends batches of messages.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use engine::contract::wall_clock_ns;

use super::message::Head;
use crate::sink::delivery::{Carrier, Parcel, Trouble};
use crate::syslog::Place;

/// EMSGSIZE of Linux.
const TOO_LARGE: i32 = 90;

/// How streams are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// One connection for all batches, none of which is confirmed by its end.
    pub keeps_open: bool,
    /// Messages end with a line feed, and have no length before them.
    pub newline: bool,
}

/// The way to a collector.
pub(super) struct Collector {
    place: Place,
    head: Head,
    way: Stream,
    timeout: Duration,
    too_large: Arc<AtomicU64>,
    /// That of a collector that takes datagrams, or the stream that is kept open.
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Tcp(TcpStream),
    UnixStream(UnixStream),
}

/// A stream in both directions.
trait Duplex: Read + Write {
    /// Whether reading waits.
    fn block(&self, blocks: bool) -> io::Result<()>;
    /// Nothing more is written.
    fn end(&self) -> io::Result<()>;
}

impl Duplex for TcpStream {
    fn block(&self, blocks: bool) -> io::Result<()> {
        self.set_nonblocking(!blocks)
    }
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Duplex for UnixStream {
    fn block(&self, blocks: bool) -> io::Result<()> {
        self.set_nonblocking(!blocks)
    }
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Collector {
    /// Not connected yet.
    pub fn new(place: Place, head: Head, way: Stream, timeout: Duration, too_large: Arc<AtomicU64>) -> Self {
        Self { place, head, way, timeout, too_large, socket: None }
    }

    fn connect(&self) -> io::Result<Socket> {
        let wait = Some(self.timeout);
        Ok(match &self.place {
            Place::Udp(address) => {
                let to = resolved(address)?;
                let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(own)?;
                socket.connect(to)?;
                socket.set_write_timeout(wait)?;
                Socket::Udp(socket)
            }
            Place::UnixDatagram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(wait)?;
                Socket::Unix(socket)
            }
            Place::Tcp(address) => {
                let socket = TcpStream::connect_timeout(&resolved(address)?, self.timeout)?;
                socket.set_write_timeout(wait)?;
                socket.set_read_timeout(wait)?;
                Socket::Tcp(socket)
            }
            Place::UnixStream(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_write_timeout(wait)?;
                socket.set_read_timeout(wait)?;
                Socket::UnixStream(socket)
            }
        })
    }

    /// Sends a batch over a socket; whether that can be used again.
    fn send(&self, socket: &mut Socket, parcel: &Parcel) -> io::Result<bool> {
        match socket {
            Socket::Udp(socket) => self.datagrams(parcel, |message| socket.send(message)),
            Socket::Unix(socket) => self.datagrams(parcel, |message| socket.send(message)),
            Socket::Tcp(stream) => self.stream(stream, parcel),
            Socket::UnixStream(stream) => self.stream(stream, parcel),
        }
    }

    fn datagrams(&self, parcel: &Parcel, send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        for line in parcel.each() {
            match send(&self.head.message(wall_clock_ns(), line)) {
                Err(error) if error.raw_os_error() == Some(TOO_LARGE) => {
                    self.too_large.fetch_add(1, Relaxed);
                }
                sent => drop(sent?),
            }
        }
        Ok(true)
    }

    fn stream(&self, stream: &mut impl Duplex, parcel: &Parcel) -> io::Result<bool> {
        let mut framed = Vec::with_capacity(parcel.lines.len() * 2);
        for line in parcel.each() {
            let message = self.head.message(wall_clock_ns(), line);
            if !self.way.newline {
                framed.extend_from_slice(format!("{} ", message.len()).as_bytes());
            }
            framed.extend_from_slice(&message);
            if self.way.newline {
                framed.push(b'\n');
            }
        }
        if self.way.keeps_open {
            // A collector that has gone is seen here: a write would be taken by the kernel first.
            stream.block(false)?;
            let gone = is_closed(stream);
            stream.block(true)?;
            if gone {
                return Err(ErrorKind::ConnectionReset.into());
            }
            stream.write_all(&framed)?;
            return Ok(true);
        }
        stream.write_all(&framed)?;
        stream.end()?;
        until_closed(stream, self.timeout).map(|()| false)
    }
}

impl Carrier for Collector {
    fn carry(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        let failed = |error: io::Error| Trouble::from(said(&error));
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().map_err(failed)?,
        };
        if self.send(&mut socket, parcel).map_err(failed)? {
            self.socket = Some(socket);
        }
        Ok(())
    }
}

/// Whether the other side has closed a connection that does not block.
fn is_closed(stream: &mut impl Read) -> bool {
    let mut some = [0; 512];
    match stream.read(&mut some) {
        Ok(bytes) => bytes == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// Waits until the other side has closed its side, having read all. What it sends is passed over.
fn until_closed(stream: &mut impl Read, timeout: Duration) -> io::Result<()> {
    let mut some = [0; 512];
    let end = Instant::now() + timeout;
    while Instant::now() < end {
        match stream.read(&mut some) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "the collector has not closed its side: does it need `confirm: sent`?"))
}

fn resolved(address: &str) -> io::Result<SocketAddr> {
    address.to_socket_addrs()?.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the host has no address"))
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => "the collector takes nothing".to_owned(),
        _ => error.to_string(),
    }
}
