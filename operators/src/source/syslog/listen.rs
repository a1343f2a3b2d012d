//! Sockets at which messages come in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::source::socket_file::{self, SocketFile};

/// Where it is listened; files have their permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    UnixDatagram(PathBuf, u32),
    UnixStream(PathBuf, u32),
}

/// What senders may do.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// From where they may send over the network.
    pub allow: Vec<IpNet>,
    /// Bytes of a message behind which it is cut.
    pub max_message: usize,
    pub max_connections: usize,
    /// How long a connection may say nothing.
    pub idle: Duration,
}

impl Limits {
    /// Whether messages of this sender are taken.
    pub fn allows(&self, sender: IpAddr) -> bool {
        let sender = sender.to_canonical();
        self.allow.iter().any(|network| network.contains(&sender))
    }
}

/// A socket that does not block, and its file.
#[derive(Debug)]
pub(super) enum Socket {
    Udp(std::net::UdpSocket),
    Tcp(std::net::TcpListener),
    UnixDatagram(UnixDatagram, SocketFile),
    UnixStream(UnixListener, SocketFile),
}

impl At {
    /// Makes the socket.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bind(&self) -> Result<Socket, String> {
        let fault = |error: io::Error| format!("cannot listen at {}: {error}", self.shown());
        let socket = match self {
            Self::Udp(address) => Socket::Udp(std::net::UdpSocket::bind(address).map_err(fault)?),
            Self::Tcp(address) => Socket::Tcp(std::net::TcpListener::bind(address).map_err(fault)?),
            Self::UnixDatagram(path, mode) => {
                let (file, socket) = SocketFile::bind(path, *mode, |path| UnixDatagram::bind(path))?;
                Socket::UnixDatagram(socket, file)
            }
            Self::UnixStream(path, mode) => {
                let (file, socket) = SocketFile::bind(path, *mode, |path| UnixListener::bind(path))?;
                Socket::UnixStream(socket, file)
            }
        };
        match &socket {
            Socket::Udp(socket) => socket.set_nonblocking(true),
            Socket::Tcp(socket) => socket.set_nonblocking(true),
            Socket::UnixDatagram(socket, _) => socket.set_nonblocking(true),
            Socket::UnixStream(socket, _) => socket.set_nonblocking(true),
        }
        .map_err(fault)?;
        Ok(socket)
    }

    /// Whether the socket can be made, beside one of another run that is there.
    ///
    /// # Errors
    /// If it cannot.
    pub fn probe(&self) -> Result<(), String> {
        let refused = |error: &io::Error| error.kind() != io::ErrorKind::AddrInUse;
        let fault = |error: io::Error| format!("cannot listen at {}: {error}", self.shown());
        match self {
            Self::Udp(address) => std::net::UdpSocket::bind(address).map(drop).or_else(ignored(refused)).map_err(fault),
            Self::Tcp(address) => {
                std::net::TcpListener::bind(address).map(drop).or_else(ignored(refused)).map_err(fault)
            }
            Self::UnixDatagram(path, _) | Self::UnixStream(path, _) => socket_file::probe(path),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Udp(address) => format!("udp://{address}"),
            Self::Tcp(address) => format!("tcp://{address}"),
            Self::UnixDatagram(path, _) | Self::UnixStream(path, _) => path.display().to_string(),
        }
    }
}

/// Passes over errors that do not count.
fn ignored(counts: impl Fn(&io::Error) -> bool) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| if counts(&error) { Err(error) } else { Ok(()) }
}
