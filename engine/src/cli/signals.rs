//! SIGINT and SIGTERM: the first one ends the run, the second one the process. SIGHUP: the pipeline is loaded again.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, complain};
use crate::render::Shared;

/// Handles the signals from now on, on a thread of its own. The receiver hears of the first.
///
/// # Errors
/// If the handlers or the thread cannot be set up.
pub(super) fn handle(shared: &Arc<Shared>) -> io::Result<Receiver<()>> {
    let (sender, first) = channel();
    let shared = Arc::clone(shared);
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
                    _ = hangup.recv() => shared.reloads.request(),
                }
            };
            next().await;
            complain("stopping; what has been received is still processed (once more to end at once)");
            shared.stop();
            // The run may have ended already, and nobody waits.
            let _ = sender.send(());
            next().await;
            // A worker that is stuck does not look at flags.
            std::process::exit(i32::from(Exit::Aborted as u8));
        });
    })?;
    Ok(first)
}
