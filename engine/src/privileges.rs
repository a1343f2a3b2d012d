//! Rights of the process. What only a capture's opening needs is kept by one thread that does nothing else; all other
//! threads have no capability, and none can get one by running a program (`no_new_privs`).
//!
//! Linux keeps capabilities by thread: so this comes before all other threads are started, which inherit what is left.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};
use parking_lot::Mutex;

/// What a node needs rights for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To open a capture when the run starts (CAP_NET_RAW).
    Capture,
    /// The same, and later too, when a changed pipeline captures elsewhere.
    CaptureAlways,
}

type Job = Box<dyn FnOnce() + Send>;

/// Gives up every right, for the calling thread and all that it starts from now on.
///
/// # Errors
/// The system's message.
pub fn give_up() -> Result<(), String> {
    keep(&CapSet::empty())
}

/// The rights that a run has kept.
#[derive(Default)]
pub struct Privileges {
    /// To the thread that has them; `None` if nothing was given up, so that every thread has what the process has.
    thread: Option<Mutex<Sender<Job>>>,
}

impl fmt::Debug for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Privileges").field("restricted", &self.thread.is_some()).finish()
    }
}

impl Privileges {
    /// Gives up what a pipeline with a capture does not need, for the calling thread and all that it starts from now on.
    /// Without a capture nothing changes. `needs` are those of the nodes of this process.
    ///
    /// # Errors
    /// The system's message.
    pub fn restrict(needs: &[Need]) -> Result<Self, String> {
        if needs.is_empty() {
            return Ok(Self::default());
        }
        let jobs = (!needs.contains(&Need::CaptureAlways)).then_some(needs.len());
        let (sender, receiver) = channel::<Job>();
        let (ready, is_ready) = channel();
        let thread = std::thread::Builder::new().name("privileged".into());
        let work = move || {
            let restricted = keep(&[Cap::NET_RAW].into_iter().collect());
            let go_on = restricted.is_ok();
            let _ = ready.send(restricted);
            if go_on {
                run(&receiver, jobs);
            }
        };
        thread.spawn(work).map_err(|error| format!("no thread to open captures with: {error}"))?;
        is_ready.recv().map_err(|_| "the thread that opens captures has gone".to_owned())??;
        keep(&CapSet::empty())?;
        Ok(Self { thread: Some(Mutex::new(sender)) })
    }

    /// Does something where the rights are.
    ///
    /// # Errors
    /// If they were given up when all captures of the start were open.
    pub fn with<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let Some(thread) = &self.thread else { return Ok(job()) };
        let (result, done) = channel();
        let work = Box::new(move || {
            // Nobody waits any more if this fails.
            let _ = result.send(job());
        });
        // An error here is one of `recv` too: the job goes, and with it the sender of its result.
        let _ = thread.lock().send(work);
        done.recv().map_err(|_| "the right to capture was given up when the run had started; start it again".to_owned())
    }
}

/// Does jobs, at most so many, after which the thread ends and its rights with it.
fn run(jobs: &Receiver<Job>, most: Option<usize>) {
    for (done, job) in jobs.iter().enumerate() {
        job();
        if most.is_some_and(|most| done + 1 >= most) {
            break;
        }
    }
}

/// Gives up all capabilities of the calling thread but those in `kept`, and the way to others.
fn keep(kept: &CapSet) -> Result<(), String> {
    let attempt = || -> capctl::Result<()> {
        capctl::prctl::set_no_new_privs()?;
        let mut state = CapState::get_current()?;
        // The bounding set needs a capability to shrink; without it there is nothing that could be gained by it.
        if state.effective.has(Cap::SETPCAP) {
            for cap in Cap::iter().filter(|cap| !kept.has(*cap) && bounding::read(*cap) == Some(true)) {
                bounding::drop(cap)?;
            }
        }
        if ambient::is_supported() {
            ambient::clear()?;
        }
        state.permitted &= *kept;
        state.effective = state.permitted;
        state.inheritable = CapSet::empty();
        state.set_current()
    };
    attempt().map_err(|error| format!("capabilities cannot be given up: {error}"))
}

/// Gives up all capabilities of the calling thread and of those that it starts from now on, for commands without a pipeline.
///
/// # Errors
/// The system's message.
pub fn give_up_all() -> Result<(), String> {
    keep(&CapSet::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_end_with_the_last_job_of_the_start() {
        let (sender, receiver) = channel::<Job>();
        let thread = std::thread::spawn(move || run(&receiver, Some(2)));
        let privileges = Privileges { thread: Some(Mutex::new(sender)) };
        assert_eq!((privileges.with(|| 1), privileges.with(|| 2)), (Ok(1), Ok(2)));
        thread.join().expect("ends");
        assert!(privileges.with(|| 3).is_err_and(|message| message.contains("given up")));
        assert_eq!(Privileges::default().with(|| 4), Ok(4));
    }

    #[test]
    fn a_thread_that_gives_up_all_has_nothing_left_and_gains_nothing() {
        let given_up = std::thread::spawn(|| {
            give_up_all()?;
            let state = CapState::get_current().map_err(|error| error.to_string())?;
            let fixed = capctl::prctl::get_no_new_privs().map_err(|error| error.to_string())?;
            Ok::<_, String>((state, fixed))
        });
        assert_eq!(given_up.join().expect("no panic"), Ok((CapState::empty(), true)));
    }
}
