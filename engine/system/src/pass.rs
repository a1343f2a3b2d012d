//! Descriptors over a Unix socket.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors that one call may pass. The kernel takes at most 253 (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 200;

/// Sends bytes, with descriptors beside the first of them.
///
/// # Errors
/// If there are no bytes or more than [`MAX_DESCRIPTORS`], or the other end is closed.
pub fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
        return Err(ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let sent = loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            done => break done?,
        }
    };
    (&mut &*socket).write_all(&bytes[sent..])
}

/// Fills `bytes`, and takes the descriptors that came beside them.
///
/// # Errors
/// If the other end is closed before, the socket's time to read is over, or descriptors were lost because there are too many.
pub fn receive(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut space = cmsg_space!([RawFd; 253]);
    let mut descriptors = Vec::new();
    let mut filled = 0;
    {
        let mut slices = [IoSliceMut::new(bytes)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                descriptors.extend(raw.into_iter().map(own));
            }
        }
        filled += message.bytes;
    }
    if filled == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    (&mut &*socket).read_exact(&mut bytes[filled..])?;
    Ok(descriptors)
}

/// Takes a descriptor that the kernel has just made for this process.
#[expect(unsafe_code, reason = "that nobody else owns a number is known only here")]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has installed the descriptor for this call. Nothing else knows its number, so nothing else closes it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
