//! `replay`: a pipeline over what its live sources received, and what would have changed with other options.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ::compare::stored::{StoredTable, tables};
use engine::contract::Registry;
use engine::contract::are_apart;
use engine::dir_lock::DirLock;
use engine::plan::{LoadOptions, Plan};
use engine::replay::{Of, Replay};
use engine::run::{Summary, execute_with};
use engine::shared::Shared;
use engine::spec::Diagnostic;

use crate::progress::Progress;
use crate::run::{default_workers, exit_of, report};
use crate::spool::rfc3339;
use crate::summary::number;
use crate::{
    Exit, LogFormat, ReplayArgs, ReportFormat, compare, complain, load_as, logging, progress, say, signals, variable,
};

/// The table that is compared unless others are named.
const DETECTIONS: &str = "detections";

/// A run that can be started.
struct Ready {
    /// What it is called beside another.
    name: Option<&'static str>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    replay: Replay,
}

pub(crate) fn replay(args: &ReplayArgs, registry: &Registry) -> Exit {
    let bar = progress::bar(args.quiet, args.log_format);
    logging::start(args.log_format, bar.clone());
    // Everything that can be refused is, before anything is started.
    let (ready, compared) = match prepare(args, registry) {
        Ok(ready) => ready,
        Err(message) => {
            if let Some(message) = message {
                complain(&message);
            }
            return Exit::Refused;
        }
    };
    let runs: Vec<Arc<Shared>> = ready.iter().map(|ready| Arc::clone(&ready.shared)).collect();
    if let Err(error) = signals::handle(&runs) {
        complain(&format!("signals cannot be handled: {error}"));
        return Exit::Failed;
    }
    ready.iter().for_each(|ready| ready.plan.modes.apply());
    let locks: Result<Vec<DirLock>, String> =
        ready.iter().map(|ready| DirLock::of(ready.plan.used_data_dir(), 0)).collect();
    let _locks = match locks {
        Ok(locks) => locks,
        Err(message) => {
            complain(&message);
            return Exit::Refused;
        }
    };
    for (nth, ready) in ready.into_iter().enumerate() {
        if nth == 0 && !args.quiet {
            describe(args, &ready.plan, &ready.replay);
        }
        match run(args, ready, &bar) {
            Exit::Ok => {}
            failed => return failed,
        }
    }
    if !args.compare {
        return Exit::Ok;
    }
    if runs.iter().any(|shared| shared.is_stopping()) {
        complain("stopped before everything was read: nothing is compared");
        return Exit::Failed;
    }
    compare_runs(&args.data_dir, &compared, args.examples)
}

/// Loads the pipeline and looks for its logs; also the tables to compare. The message is why it is refused, `None` if
/// that was said already.
fn prepare(args: &ReplayArgs, registry: &Registry) -> Result<(Vec<Ready>, Vec<String>), Option<String>> {
    let (set, input) = (args.overrides.set.as_slice(), args.input.as_slice());
    if args.compare && set.is_empty() && input.is_empty() {
        return Err(Some("--compare needs something that differs: give --set or --input".to_owned()));
    }
    let time = args.from.unwrap_or(i64::MIN)..args.to.unwrap_or(i64::MAX);
    if time.is_empty() {
        return Err(Some("--to is not after --from: there is nothing between them".to_owned()));
    }
    let time = (args.from.is_some() || args.to.is_some()).then_some(time);
    let spool = args.spool.as_deref();
    if spool.is_some_and(|spool| !are_apart(spool, &args.data_dir)) {
        return Err(Some("--data-dir is in --spool, or around it: choose another folder to write to".to_owned()));
    }
    let load = |name: Option<&'static str>, set: &[String], input: &[String]| {
        let output = name.map_or_else(|| args.data_dir.clone(), |name| args.data_dir.join(name));
        let options = LoadOptions { overrides: set, inputs: input, output: Some(&output), variable: &variable };
        let mut plan = load_as(&args.file, registry, &options).map_err(|_| None)?;
        // Whatever processes received the logs, this one reads them.
        plan.nodes.iter_mut().for_each(|node| node.process = 0);
        let plan = Arc::new(plan);
        let shared = Arc::new(Shared::new(&plan));
        let of = Of { spool, time: time.clone(), durable: args.durable };
        let replay = Replay::prepare(&plan, &shared, &of).map_err(|error| Some(error.to_string()))?;
        Ok::<Ready, Option<String>>(Ready { name, plan, shared, replay })
    };
    if !args.compare {
        return Ok((vec![load(None, set, input)?], Vec::new()));
    }
    // With --set, recordings are what both runs read; else they are what differs.
    let before = load(Some("before"), &[], if set.is_empty() { &[] } else { input })?;
    let after = load(Some("after"), set, input)?;
    let compared = compared(&after.plan, &args.table)?;
    Ok((vec![before, after], compared))
}

/// Runs one to its end.
fn run(args: &ReplayArgs, ready: Ready, bar: &indicatif::ProgressBar) -> Exit {
    let Ready { name, plan, shared, replay } = ready;
    if let (Some(name), false) = (name, args.quiet) {
        note(args.log_format, &format!("{name}: into {}", plan.data_dir.display()));
    }
    let start = Instant::now();
    let workers = args.workers.map_or_else(default_workers, usize::from);
    let (options, missed) = replay.start(workers);
    let shown = (!args.quiet).then(|| Progress::start(&plan, &shared, bar, args.log_format));
    let outcome = execute_with(Arc::clone(&plan), &shared, options);
    drop(shown);
    if !args.quiet {
        report(&Summary::new(&plan, &shared, start.elapsed()), args.log_format);
    }
    for (log, records) in missed.records() {
        let many = number(records);
        complain(&format!(
            "{log}: {many} records are damaged, gone or of another schema and were passed over; see `spool check`"
        ));
    }
    let Err(error) = outcome else { return Exit::Ok };
    match args.log_format {
        LogFormat::Text => complain(&error.to_string()),
        LogFormat::Json => tracing::error!(%error, "the run failed"),
    }
    exit_of(&error)
}

/// Says what is read, and what does not take part.
fn describe(args: &ReplayArgs, plan: &Plan, replay: &Replay) {
    for (log, contents) in &replay.logs {
        let times = match (contents.oldest, contents.newest) {
            (Some(oldest), Some(newest)) => format!("event times {} to {}", rfc3339(oldest), rfc3339(newest)),
            _ => "no rows".to_owned(),
        };
        note(args.log_format, &format!("{log}: the spool has {times}"));
    }
    if !replay.left_out.is_empty() {
        let names = replay.left_out.join(", ");
        note(args.log_format, &format!("not run, because what they read is not in the spool: {names}"));
    }
    if !replay.in_part.is_empty() {
        let names = replay.in_part.join(", ");
        let hint = if args.durable || plan.durable().next().is_none() { "" } else { "; see --durable" };
        note(
            args.log_format,
            &format!("made from a part of the rows at first, which the logs do not reach back to: {names}{hint}"),
        );
    }
    let word = |set: &String| set.split(['.', '=']).next().unwrap_or_default().to_owned();
    for id in args.overrides.set.iter().map(word).filter(|id| replay.recorded.contains(id)) {
        note(args.log_format, &format!("`{id}` stands before the spool: --set {id}… changes nothing here"));
    }
}

fn note(format: LogFormat, message: &str) {
    match format {
        LogFormat::Text => say(message),
        LogFormat::Json => tracing::info!("replay: {message}"),
    }
}

/// The tables to compare: those named, else `detections`, else all stored relations.
fn compared(plan: &Plan, named: &[String]) -> Result<Vec<String>, Option<String>> {
    let mut stored: Vec<(String, bool)> = Vec::new();
    for node in &plan.nodes {
        let inputs = node.types.iter().map(|ty| ty.is_relation());
        stored.extend(node.node.facts().stores.into_iter().zip(inputs));
    }
    let names = || stored.iter().map(|(name, _)| name.as_str());
    if let Some(missing) = named.iter().find(|name| !names().any(|stored| stored == *name)) {
        let help = Diagnostic::new(Default::default(), "").nearest(missing, names()).help;
        let help = help.map(|help| format!(" ({help})")).unwrap_or_default();
        return Err(Some(format!("the pipeline stores no table `{missing}`{help}")));
    }
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    if names().any(|name| name == DETECTIONS) {
        return Ok(vec![DETECTIONS.to_owned()]);
    }
    let relations: Vec<String> =
        stored.iter().filter(|(_, relation)| *relation).map(|(name, _)| name.clone()).collect();
    match relations.is_empty() {
        true if stored.is_empty() => Err(Some("the pipeline stores no table that could be compared".to_owned())),
        true => Err(Some(format!(
            "no stored table is a relation: name one with --table ({})",
            names().collect::<Vec<_>>().join(", ")
        ))),
        false => Ok(relations),
    }
}

fn compare_runs(out: &Path, compared: &[String], examples: usize) -> Exit {
    let (before, after) = match (tables(&out.join("before")), tables(&out.join("after"))) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            complain(&error.to_string());
            return Exit::Failed;
        }
    };
    for name in compared {
        // A run that has found nothing has no files.
        let [before, after] =
            [&before, &after].map(|tables| tables.get(name).cloned().unwrap_or_else(|| StoredTable::empty(name)));
        match compare::table(name, (&before, &after), None, examples, ReportFormat::Text) {
            Exit::Ok => {}
            failed => return failed,
        }
    }
    Exit::Ok
}
