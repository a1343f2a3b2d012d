//! Plugs the web service into the engine's command line: a listener and a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use command_line::{RunState, WebContext, WebService};
use dashboards::{Limits, Program, Service, State, Status};
use tokio::sync::oneshot;

/// How long requests under way may go on when the service is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// Binds the address, then answers on a thread of its own until it is dropped.
///
/// # Errors
/// If the address cannot be bound or the threads cannot be started.
pub fn start(context: WebContext) -> io::Result<Box<dyn WebService>> {
    let status = Arc::new(Status::of({
        let begun = context.begun.clone();
        Box::new(move || begun.is_so())
    }));
    let limits = Limits {
        processes: context.queries.processes,
        process_memory: context.queries.memory,
        // A part is for what DataFusion does not account for.
        memory: usize::try_from(context.queries.memory / 4).unwrap_or(usize::MAX),
        timeout: context.queries.timeout,
        queue: context.queries.timeout + Duration::from_secs(2),
        ..Limits::default()
    };
    // The larger part of the descriptors is for the run's own files.
    let descriptors = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
    let connections = limits.connections.min(usize::try_from(descriptors / 4).unwrap_or(usize::MAX));
    // The program that runs, also when its file was replaced meanwhile.
    let program = Program { path: "/proc/self/exe".into(), arguments: vec![crate::QUERY_PROCESS.into()] };
    let app = dashboards::app(Service {
        catalog: context.catalog,
        metrics: context.metrics,
        status: Arc::clone(&status),
        limits,
        name: context.name,
        reloads: context.reloads,
        hosts: context.hosts,
        intakes: context.intakes,
        program,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(context.listen))?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || {
        let serve = dashboards::listen(listener, app, connections, async {
            // A dropped sender stops the service as well as a message does.
            let _ = stopped.await;
        });
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "the web service has ended");
        }
        runtime.shutdown_timeout(GRACE);
    })?;
    Ok(Box::new(Running { address, status, stop: Some(stop), thread: Some(thread) }))
}

struct Running {
    address: SocketAddr,
    status: Arc<Status>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WebService for Running {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn set_state(&self, state: RunState) {
        self.status.set(match state {
            RunState::Running => State::Running,
            RunState::Finished => State::Finished,
            RunState::Failed(message) => State::Failed(message),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // A client that keeps its connection open must not keep the program alive.
        let end = std::time::Instant::now() + GRACE;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("the web service panicked");
            }
        }
    }
}
