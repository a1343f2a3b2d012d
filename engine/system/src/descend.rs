//! What a child process begins with.

use std::io;

/// Closes every descriptor above the three standard ones. Libraries open some that are handed on to every program that is started
/// later, such as libpcap's sockets.
///
/// It is for the first lines of a program, before it has opened anything.
///
/// # Errors
/// The system's, if neither `close_range(2)` nor `/proc/self/fd` is there.
#[expect(unsafe_code, reason = "that nobody owns a descriptor is known only by who calls this first")]
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: The call takes three numbers. The caller has opened nothing yet, so no value owns what is closed.
    if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } == 0 {
        return Ok(());
    }
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name()).collect();
    for descriptor in names.iter().filter_map(|name| name.to_str()?.parse::<i32>().ok()).filter(|at| *at > 2) {
        // SAFETY: As above. The descriptor of the listing itself is closed already, which is an error that nobody minds.
        unsafe { libc::close(descriptor) };
    }
    Ok(())
}

/// Lets signals that end a program pass by: SIGINT, SIGTERM and SIGHUP. Whoever started it ends it.
#[expect(unsafe_code, reason = "a handler could do what a signal must not; to ignore one is no handler")]
pub fn ignore_ends() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: SIG_IGN runs no code of the program.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
