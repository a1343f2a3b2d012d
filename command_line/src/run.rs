//! `run`: loads a pipeline, starts its web service, runs it, and says how it went.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::available_parallelism;
use std::time::Instant;

use engine::cluster::{Cluster, Hosts};
use engine::contract::Registry;
use engine::dir_lock::DirLock;
use engine::graph::mermaid;
use engine::plan::{LoadOptions, Plan};
use engine::privileges::Privileges;
use engine::reload::Outcome;
use engine::run::Loader;
use engine::run::{Options, RunError, Summary, Together, execute_with};
use engine::shared::{FailureClass, Shared};
use engine::text::printable;
use indicatif::ProgressBar;

use crate::args::TogetherArgs;
use crate::progress::Progress;
use crate::watch::{Files, Watch};
use crate::{Begun, Exit, LogFormat, RunArgs, RunState, Web, WebContext, WebService};
use crate::{complain, load_with, logging, progress, say, signals, summary};

/// More workers than this are only used if asked for: a pipeline's sources are often what limits it.
const DEFAULT_WORKERS: usize = 2;

pub(crate) fn run(args: &RunArgs, registry: &Registry, web: Web) -> Exit {
    // Before anything is said.
    let bar = progress::bar(args.quiet, args.log_format);
    logging::start(args.log_format, bar.clone());
    let mut pipeline = match Prepared::new(args, registry, web) {
        Ok(pipeline) => pipeline,
        Err(exit) => return exit,
    };
    let start = Instant::now();
    let outcome = pipeline.execute(args, registry, &bar);
    let summary = Summary::new(&pipeline.plan, &pipeline.shared, start.elapsed());
    if !args.quiet {
        report(&summary, args.log_format);
    }
    if let Err(error) = outcome {
        return pipeline.has_failed(&error, args.log_format);
    }
    let exit = read_in_vain(&pipeline.plan, &pipeline.shared, &summary);
    pipeline.has_finished(args.serve);
    exit
}

/// A pipeline that is ready to run. The fields are dropped in this order: the lock of the folder outlives what uses it.
struct Prepared {
    signalled: Receiver<()>,
    service: Option<Box<dyn WebService>>,
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    workers: usize,
    cluster: Option<Together>,
    _lock: DirLock,
}

impl Prepared {
    /// Loads a pipeline, takes what it needs and starts its web service. What it cannot have has been said on an error.
    fn new(args: &RunArgs, registry: &Registry, web: Web) -> Result<Self, Exit> {
        let plan = load_with(&args.file, &args.overrides, registry).map_err(|_| Exit::Refused)?;
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if plan.serve.is_none() && (args.serve || args.listen.is_some()) {
            let message = format!("{} has no section `serve`, so there is nothing to serve", args.file.display());
            return Err(complained(Exit::Refused)(message));
        }
        let workers = args.workers.map_or_else(default_workers, usize::from);
        let cluster = together(args, &plan, workers).map_err(complained(Exit::Refused))?;
        // Before any thread is started, so that none has more rights than it needs.
        let own = cluster.as_ref().map_or(0, |together| together.cluster.process());
        let privileges = Privileges::restrict(&plan.needs_of_process(own)).map_err(complained(Exit::Failed))?;
        plan.modes.apply();
        let lock = DirLock::of(plan.used_data_dir(), own).map_err(complained(Exit::Failed))?;
        let mut shared = Shared::new(&plan);
        shared.privileges = privileges;
        let shared = Arc::new(shared);
        shared.catalog.set_graph(mermaid(&plan));
        let plan = Arc::new(plan);
        // Served tables are in the first of several processes.
        let service = match own {
            0 => start_web(&plan, &shared, args.listen, web).map_err(complained(Exit::Web))?,
            _ => None,
        };
        let signalled = signals::handle(&[Arc::clone(&shared)])
            .map_err(|error| complained(Exit::Failed)(format!("signals cannot be handled: {error}")))?;
        if let Some(service) = &service {
            service.set_state(RunState::Running);
            if !args.quiet {
                say(&format!("serving on http://{}", service.address()));
            }
        }
        Ok(Self { signalled, service, shared, plan, workers, cluster, _lock: lock })
    }

    /// Runs it, shows how it gets on, and changes it when its files change.
    fn execute(&mut self, args: &RunArgs, registry: &Registry, bar: &ProgressBar) -> Result<(), RunError> {
        if let (Some(hosts), false) = (&args.together.hosts, args.quiet) {
            say(&format!("waiting for the other processes of {}", hosts.display()));
        }
        let shown = (!args.quiet).then(|| Progress::start(&self.plan, &self.shared, bar, args.log_format));
        self.shared.reloads.tell(tell);
        let watches = !args.no_watch && self.plan.is_spooled();
        let files = Files::new(&self.plan.files);
        let watch = watches.then(|| Watch::start(Arc::clone(&files), &self.shared));
        let loader = Some(loader(args, registry, files));
        let options = Options { workers: self.workers, cluster: self.cluster.take(), loader, ..Options::default() };
        let outcome = execute_with(Arc::clone(&self.plan), &self.shared, options);
        drop(watch);
        drop(shown);
        outcome
    }

    /// Says why the run has not ended well.
    fn has_failed(&self, error: &RunError, format: LogFormat) -> Exit {
        if let Some(service) = &self.service {
            service.set_state(RunState::Failed(error.to_string()));
        }
        match format {
            LogFormat::Text => complain(&error.to_string()),
            LogFormat::Json => tracing::error!(%error, "the run failed"),
        }
        exit_of(error)
    }

    /// The run has ended well; its web service `stays` until a signal comes.
    fn has_finished(&self, stays: bool) {
        let Some(service) = &self.service else { return };
        service.set_state(RunState::Finished);
        if stays && self.signalled.try_recv().is_err() {
            say(&format!("all sources have ended; serving on http://{} until SIGINT or SIGTERM", service.address()));
            // An error means that the signal thread is gone, and nothing could end the wait.
            let _ = self.signalled.recv();
        }
    }
}

/// For `map_err`: says why a command does not succeed, and ends it like this.
fn complained(exit: Exit) -> impl FnOnce(String) -> Exit {
    move |message| {
        complain(&message);
        exit
    }
}

/// How a run ends whose files have been read: well, unless of one of them nothing was understood.
fn read_in_vain(plan: &Plan, shared: &Shared, summary: &Summary) -> Exit {
    let sources = summary.not_understood();
    if sources.is_empty() || !plan.is_bounded() || shared.is_stopping() {
        return Exit::Ok;
    }
    complain(&format!("nothing was understood of: {}", sources.join(", ")));
    Exit::NotUnderstood
}

/// The processes that run the pipeline, if there are several. The error is what a user reads.
fn together(args: &RunArgs, plan: &Plan, workers: usize) -> Result<Option<Together>, String> {
    let TogetherArgs { process, hosts, connect_timeout } = &args.together;
    let (Some(process), Some(hosts)) = (process, hosts) else {
        return plan.check_processes(1).map(|()| None);
    };
    let cluster = Hosts::load(hosts).and_then(|hosts| Cluster::new(hosts, *process, workers));
    let cluster = cluster.map_err(|error| error.to_string())?;
    plan.check_processes(cluster.processes())?;
    Ok(Some(Together { cluster, timeout: *connect_timeout }))
}

/// Loads the pipeline again, as it was loaded at the start.
fn loader(args: &RunArgs, registry: &Registry, files: Arc<Files>) -> Loader {
    let (file, overrides, registry) = (args.file.clone(), args.overrides.set.clone(), registry.clone());
    Box::new(move || {
        let variable = |name: &str| std::env::var(name).ok();
        let options = LoadOptions { overrides: &overrides, ..LoadOptions::new(&variable) };
        files.load();
        let plan = Plan::load_as(&file, &registry, &options);
        let plan = plan.map_err(|(problems, sources)| sources.render(&problems, false))?;
        files.are(&plan.files);
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        plan.check_processes(1).map(|()| plan)
    })
}

/// One line for each outcome, and the faults behind it.
fn tell(outcome: &Outcome) {
    let (name, said) = (outcome.name(), outcome.message().trim_end());
    match (logging::is_json(), outcome) {
        (true, Outcome::Refused(_)) => tracing::warn!(outcome = name, "reload: {name} {said}"),
        (true, _) => tracing::info!(outcome = name, "reload: {name} {said}"),
        (false, _) => say(format!("reload: {name} {said}").trim_end()),
    }
}

pub(crate) fn default_workers() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().min(DEFAULT_WORKERS))
}

pub(crate) fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::Failed(failure) if failure.class == FailureClass::Permission => Exit::Permission,
        RunError::Failed(_)
        | RunError::Panicked { .. }
        | RunError::NotStarted(_)
        | RunError::NotConnected(_)
        | RunError::Other(_) => Exit::Failed,
    }
}

/// Starts the web service before the dataflow, so that a port in use costs nothing.
fn start_web(
    plan: &Plan,
    shared: &Arc<Shared>,
    listen: Option<SocketAddr>,
    web: Web,
) -> Result<Option<Box<dyn WebService>>, String> {
    let Some(serve) = &plan.serve else { return Ok(None) };
    let listen = match listen {
        Some(listen) => listen,
        None => {
            serve.listen.parse().map_err(|error| format!("`{}` is not an address and port: {error}", serve.listen))?
        }
    };
    let context = WebContext {
        name: plan.name.clone(),
        hosts: serve.hosts.clone(),
        queries: serve.queries.clone(),
        listen,
        catalog: Arc::clone(&shared.catalog),
        metrics: Arc::clone(&shared.metrics),
        reloads: Arc::clone(&shared.reloads),
        intakes: Arc::clone(&shared.intakes),
        begun: {
            let shared = Arc::clone(shared);
            Begun::new(move || shared.start.has_begun())
        },
    };
    web(context).map(Some).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("the address {listen} is in use: choose another with --listen"),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to listen on {listen}: choose a port from 1024 on with --listen")
        }
        io::ErrorKind::AddrNotAvailable => format!("no interface of this machine has the address {}", listen.ip()),
        _ => format!("the web service cannot start on {listen}: {error}"),
    })
}

pub(crate) fn report(summary: &Summary, format: LogFormat) {
    if format == LogFormat::Text {
        let _ = io::stderr().write_all(printable(&summary::text(summary)).as_bytes());
        return;
    }
    for node in &summary.nodes {
        let own: serde_json::Map<String, serde_json::Value> =
            node.named.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        tracing::info!(
            node = node.id,
            kind = node.kind,
            rows_in = node.rows_in,
            rows_out = node.rows_out,
            bytes = node.bytes,
            late = node.late,
            rejected = node.rejected,
            evicted = node.evicted,
            counters = %serde_json::Value::Object(own),
            "node summary"
        );
    }
    let (seconds, rows) = (summary.wall.as_secs_f64(), summary.source_rows());
    tracing::info!(seconds, rows, rows_per_second = summary.rows_per_second(), "summary");
}
