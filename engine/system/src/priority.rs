//! The priority of a process among others.

use std::io;

/// Lets other processes go first: the calling thread, and those that it starts from now on, have this niceness (`setpriority(2)`),
/// from 0, as usual, to 19.
///
/// # Errors
/// The system's. To lower the priority is allowed to everybody.
#[expect(unsafe_code, reason = "libc's functions are not marked as safe")]
pub fn give_way(niceness: u8) -> io::Result<()> {
    // SAFETY: The call takes three numbers and touches no memory of the process. 0 is the calling thread.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, i32::from(niceness.min(19))) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_gives_way() {
        let thread = std::thread::spawn(|| {
            super::give_way(5).expect("allowed");
            // Field 19 of proc_pid_stat(5); the second, the name, may have blanks, and ends with a parenthesis.
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16).map(str::to_owned))
        });
        assert_eq!(thread.join().expect("no panic").as_deref(), Some("5"));
    }
}
