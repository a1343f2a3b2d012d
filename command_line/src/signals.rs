//! SIGINT and SIGTERM: the first one ends the run, the second one the process. SIGHUP: the pipeline is loaded again, and
//! files that sinks write to are opened again.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use engine::shared::Shared;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Exit, say};

/// Handles the signals to a run, or to several that follow each other, from now on, on a thread of its own. The receiver hears of the first.
///
/// # Errors
/// If the handlers or the thread cannot be set up.
pub(crate) fn handle(runs: &[Arc<Shared>]) -> io::Result<Receiver<()>> {
    let (sender, first) = channel();
    let runs = runs.to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let mut next = async || loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    _ = hangup.recv() => runs.iter().for_each(|shared| shared.reloads.request_all()),
                }
            };
            next().await;
            say("stopping; what has been received is still processed (once more to end at once)");
            runs.iter().for_each(|shared| shared.stop());
            // The run may have ended already, and nobody waits.
            let _ = sender.send(());
            next().await;
            // A worker that is stuck does not look at flags.
            std::process::exit(i32::from(Exit::Aborted as u8));
        });
    })?;
    Ok(first)
}
