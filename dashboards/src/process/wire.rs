//! What the run and a query process say to each other: messages in JSON with their length before them, and descriptors beside them.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Limits;
use crate::query::Statement;

/// Bytes of a message to a query process.
const MAX_BYTES: usize = 256 << 20;

/// Bytes of a message from one.
pub(super) const MAX_REPLY: usize = 1 << 20;

/// To a query process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first message: what the process may do.
    Begin(Begin),
    /// Rows in memory, a descriptor beside the message for each number.
    Take(Vec<u64>),
    /// Rows that no table has any more.
    Forget(Vec<u64>),
    /// A query.
    Ask(Box<Ask>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub limits: Limits,
    /// Bytes that the process may allocate.
    pub memory: u64,
    /// Directories with files of tables.
    pub readable: Vec<PathBuf>,
    /// Whether it reads from another place, over the network.
    pub connects: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub statement: Statement,
    pub tables: Vec<TableNow>,
}

/// A table at one moment. Rows in memory are named by the numbers of their files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TableNow {
    pub name: String,
    pub schema: u64,
    pub hot: Vec<(u64, usize)>,
    pub segments: Vec<SegmentNow>,
    pub stored: Option<StoredNow>,
    pub hot_rows: usize,
    pub is_read: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SegmentNow {
    pub path: PathBuf,
    pub rows: u64,
    pub bytes: u64,
    pub unread: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredNow {
    /// What [`engine::catalog::History::describe`] says.
    pub place: Value,
    pub before: Option<u64>,
    pub gap: bool,
}

/// From a query process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The answer to `Begin`: what of the confinement this system does not have.
    Ready(Vec<String>),
    /// So many bytes follow, which are the answer.
    Rows { rows: usize, truncated: bool, bytes: usize },
    /// A file of a table was removed while it was read.
    Gone,
    /// There is no answer.
    Refused(Refused),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refused {
    pub status: u16,
    pub message: String,
    pub help: Option<String>,
    /// What the log should say, where the message does not.
    pub cause: Option<String>,
}

/// A message as bytes.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The length that the first bytes of a message say.
pub(super) fn length(bytes: [u8; 4], most: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > most { Err(ErrorKind::InvalidData.into()) } else { Ok(length) }
}

/// Sends a message with descriptors.
pub(super) fn send(socket: &UnixStream, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    system::send(socket, &encode(message)?, descriptors)
}

/// Receives a message with its descriptors; waits for it.
pub(super) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut first = [0; 4];
    let descriptors = system::receive(socket, &mut first)?;
    let mut bytes = vec![0; length(first, MAX_BYTES)?];
    (&mut &*socket).read_exact(&mut bytes)?;
    Ok((serde_json::from_slice(&bytes)?, descriptors))
}

/// Sends bytes as they are.
pub(super) fn send_all(socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    (&mut &*socket).write_all(bytes)
}
