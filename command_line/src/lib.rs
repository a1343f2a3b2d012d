//! The command line: one file a command, and what all take in `args.rs`. The root binary calls [`main`] with its
//! operators, its web service and commands of other crates ([`Extra`]).
//!
//! Whoever adds a command takes from here how a process ends ([`Exit`]), and how it says things ([`print()`],
//! [`complain`]). No node does: what a run says goes through counters, tables and log lines.

mod args;
mod compare;
mod graph;
pub mod list;
mod logging;
mod plan_diff;
mod progress;
mod replay;
mod run;
pub mod schema;
mod signals;
mod spool;
mod status;
mod summary;
mod validate;
mod watch;
mod web;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use engine::contract::Registry;
use engine::plan::{LoadOptions, Plan};
use engine::text::{json, message, printable};

use args::{
    Cli, Command, CompareArgs, GraphFormat, ListFormat, LogFormat, Overrides, ReplayArgs, ReportFormat, RunArgs,
};

pub use status::ask;
pub use web::{Begun, RunState, Web, WebContext, WebService};

/// A command of another crate.
#[derive(Debug)]
pub struct Extra {
    /// Its name, its help and its arguments.
    pub command: clap::Command,
    /// Runs it.
    pub run: fn(&ArgMatches, &Registry) -> Exit,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The run failed: a source could not be read, a sink refused, a worker panicked.
    Failed = 1,
    /// The pipeline or the command line was refused; nothing was started.
    Refused = 2,
    /// The web service could not start, such as when its address is in use.
    Web = 3,
    /// The process lacks a right, such as CAP_NET_RAW for a capture.
    Permission = 4,
    /// The run has ended well, but of a source nothing was understood.
    NotUnderstood = 5,
    /// A command that looks for something, such as `explain`, has found nothing.
    NotFound = 6,
    /// A second signal ended the run at once: 128 + SIGINT.
    Aborted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command that the process was started with.
pub fn main(registry: Registry, web: Web, extras: Vec<Extra>) -> ExitCode {
    command(std::env::args_os(), &registry, web, extras).into()
}

/// Runs a command line, whose first word is the program's name.
pub fn command(line: impl IntoIterator<Item = OsString>, registry: &Registry, web: Web, extras: Vec<Extra>) -> Exit {
    std::panic::set_hook(Box::new(|info| {
        // Whoever sends rows must not fill the log with panics that are caught and counted.
        if !engine::expr::is_guarded() {
            complain(&format!("defect: {info}"));
        }
    }));
    let line: Vec<OsString> = line.into_iter().collect();
    let json = wants_json(&line);
    let cli = match parse(line, extras) {
        Ok(Parsed::Own(cli)) => cli,
        Ok(Parsed::Extra(run, matches)) => return run(&matches, registry),
        Err(error) => {
            if json && error.use_stderr() {
                logging::start(LogFormat::Json, indicatif::ProgressBar::hidden());
                complain(error.to_string().trim());
                return Exit::Refused;
            }
            show(&error);
            return if error.use_stderr() { Exit::Refused } else { Exit::Ok };
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args, registry, web),
        Command::Validate { files, connect, overrides } => validate::validate(&files, &overrides, connect, registry),
        Command::PlanDiff { old, new, format, overrides } => {
            plan_diff::plan_diff(&old, &new, format, &overrides, registry)
        }
        Command::Replay(args) => replay::replay(&args, registry),
        Command::Compare(args) => compare::compare(&args),
        Command::Graph { file, format } => graph::graph(&file, format, registry),
        Command::List { kind, format } => list::list(kind.as_deref(), format, registry),
        Command::Schema => print(&schema::text(registry)),
        Command::Status { url, format } => status::status(&url, format),
        Command::Spool(command) => spool::spool(command),
    }
}

/// What a command line asks for.
enum Parsed {
    Own(Cli),
    Extra(fn(&ArgMatches, &Registry) -> Exit, ArgMatches),
}

fn parse(line: impl IntoIterator<Item = OsString>, extras: Vec<Extra>) -> Result<Parsed, clap::Error> {
    let runs: Vec<_> = extras.iter().map(|extra| (extra.command.get_name().to_owned(), extra.run)).collect();
    let command = extras.into_iter().fold(Cli::command(), |command, extra| command.subcommand(extra.command));
    let mut matches = command.try_get_matches_from(line)?;
    let run = |name| runs.iter().find(|(extra, _)| extra == name).map(|(_, run)| *run);
    if let Some(run) = matches.subcommand_name().and_then(run)
        && let Some((_, matches)) = matches.remove_subcommand()
    {
        return Ok(Parsed::Extra(run, matches));
    }
    Cli::from_arg_matches(&matches).map(Parsed::Own)
}

/// Whether a command line that cannot be read asks for log lines in JSON.
fn wants_json(line: &[OsString]) -> bool {
    let apart = line.windows(2).any(|two| two[0] == "--log-format" && two[1] == "json");
    apart || line.iter().any(|word| word == "--log-format=json")
}

/// Loads a pipeline; what is wrong with it is shown on stderr.
///
/// # Errors
/// The number of faults.
pub fn load(file: &Path, registry: &Registry) -> Result<Plan, usize> {
    load_with(file, &Overrides::default(), registry)
}

/// [`load`] with options in place of the file's.
fn load_with(file: &Path, overrides: &Overrides, registry: &Registry) -> Result<Plan, usize> {
    load_as(file, registry, &LoadOptions { overrides: &overrides.set, ..LoadOptions::new(&variable) })
}

/// [`load`] with all options.
fn load_as(file: &Path, registry: &Registry, options: &LoadOptions<'_>) -> Result<Plan, usize> {
    Plan::load_as(file, registry, options).map_err(|(problems, sources)| {
        if logging::is_json() {
            sources.lines(&problems).iter().for_each(|problem| tracing::error!("{problem}"));
        } else {
            let _ = writeln!(std::io::stderr(), "{}\n", sources.render(&problems, colour()));
        }
        problems.len()
    })
}

/// An environment variable.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether stderr wants colour (<https://no-color.org>).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows what clap has to say. Help and version are "errors" too; clap knows which stream each belongs to.
fn show(error: &clap::Error) {
    match printable(&error.to_string()) {
        Cow::Borrowed(_) => _ = error.print(),
        // A word of the command line, which may be somebody else's, has something in it that a terminal obeys.
        Cow::Owned(text) => _ = writeln!(std::io::stderr(), "{}", message(text.trim_end())),
    }
}

/// Writes a command's result to stdout: lines whose values have been through [`engine::text::line`]. Whatever else there is in
/// them that a terminal obeys is escaped. A reader that has gone away, such as `head`, has what it wanted.
pub fn print(text: &str) -> Exit {
    write(&printable(text))
}

/// [`print()`] for JSON, which stays the same in value.
pub fn print_json(text: &str) -> Exit {
    write(&json(text))
}

fn write(text: &str) -> Exit {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("stdout cannot be written: {error}"));
            Exit::Failed
        }
        _ => Exit::Ok,
    }
}

/// Says on stderr why a command does not succeed.
pub fn complain(text: &str) {
    match logging::is_json() {
        true => tracing::error!("{text}"),
        false => _ = writeln!(std::io::stderr(), "ja4-engine: {}", message(text)),
    }
}

/// Says on stderr how a command gets on.
fn say(text: &str) {
    match logging::is_json() {
        true => tracing::info!("{text}"),
        false => _ = writeln!(std::io::stderr(), "{}", message(text)),
    }
}
