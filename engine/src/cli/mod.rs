//! The command line: one file a command. The root binary calls [`main`] with its operators and its web service.

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

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::contract::Registry;
use crate::plan::{LoadOptions, Plan};
use crate::text::printable;

pub use web::{RunState, Web, WebContext, WebService};

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
    /// A second signal ended the run at once: 128 + SIGINT.
    Aborted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the run failed: an input could not be read, a sink refused, a worker panicked, another process was lost
  2    the pipeline or the command line was refused; nothing was started
  3    the web service could not start, such as when its address is in use
  4    no permission, such as to capture from an interface
  5    all input was read, but of a source nothing was understood: every line was rejected
  130  ended at once by a second SIGINT or SIGTERM";

/// TLS and HTTP bot detection: runs a YAML pipeline as one dataflow.
#[derive(Debug, Parser)]
#[command(name = "ja4-engine", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline until its files are read, or until SIGINT or SIGTERM
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Check pipelines without running them; every fault is shown with its place
    Validate {
        /// Pipelines
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Also ask the servers that are written to whether their tables fit
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Compare two pipelines: what differs, and what of a running one would go on or be rebuilt from the spool
    PlanDiff {
        /// The pipeline that runs
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The pipeline that it would become
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// Format of the comparison
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
        /// For NEW
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Run a pipeline again over what its live sources received, writing elsewhere
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// Compare the tables of two runs: rows that are new, gone or changed
    Compare(CompareArgs),
    /// Draw a pipeline as text
    Graph {
        /// Pipeline
        file: PathBuf,
        /// Language of the drawing
        #[arg(long, value_enum, default_value_t)]
        format: GraphFormat,
    },
    /// List the kinds of nodes in the order of data flow, or one kind with its columns and options
    List {
        /// Kind of node, such as `filter`, or a topic: pipeline, serve, spool, formats, features, rules, levels
        kind: Option<String>,
        /// Format of the list
        #[arg(long, value_enum, default_value_t)]
        format: ListFormat,
    },
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Ask a running pipeline how it is
    Status {
        /// Address of its web service
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
        url: String,
        /// Format of the answer
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
    /// Look at the logs of what live sources received
    #[command(subcommand)]
    Spool(spool::Spool),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Pipeline
    file: PathBuf,
    /// Number of workers of a process. The result depends on it only where a bound is met that workers share, such as
    /// `max_groups` or `max_hellos`; then a node counts what it evicts [default: the number of cores, at most 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Keep the web service running when all files are read, until SIGINT or SIGTERM
    #[arg(long)]
    serve: bool,
    /// Address and port of the web service, in place of the pipeline's
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    overrides: Overrides,
    /// Format of log lines on stderr; RUST_LOG selects them [default: warn; json: warn,engine=info]
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Do not load the pipeline again when one of its files has changed; SIGHUP still does
    #[arg(long)]
    no_watch: bool,
    /// No progress and no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    together: TogetherArgs,
}

#[derive(Debug, clap::Args)]
struct TogetherArgs {
    /// This process's number if several run the pipeline: the line of its own address in the hosts file, from 0
    #[arg(long, value_name = "K", requires = "hosts")]
    process: Option<usize>,
    /// The processes that run the pipeline together, `address:port` a line; nothing between them is encrypted or checked
    /// but the address: the ports must be reachable by them alone
    #[arg(long, value_name = "FILE", requires = "process")]
    hosts: Option<PathBuf>,
    /// How long the other processes are waited for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::spec::humantime_duration::parse)]
    connect_timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct ReplayArgs {
    /// Pipeline
    file: PathBuf,
    /// Where the results go: the files of `data_dir` to their places beneath it, all others under their names
    #[arg(long, value_name = "OUT")]
    data_dir: PathBuf,
    /// Directory of the spool [default: the pipeline's]; its engine may be running
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Only results from this event time on, such as 2026-05-01T12:00:00Z, or in ms since 1970; what they need from before
    /// is read as well [default: all that the spool has]
    #[arg(long, value_name = "TIME", value_parser = spool::event_time)]
    from: Option<i64>,
    /// Only results before this event time
    #[arg(long, value_name = "TIME", value_parser = spool::event_time)]
    to: Option<i64>,
    /// A recording in place of what the source NODE received: a capture file, or a file of JSON lines [repeatable]
    #[arg(long, value_name = "NODE=PATH")]
    input: Vec<String>,
    #[command(flatten)]
    overrides: Overrides,
    /// Run without --set too (without --set, without --input), into OUT/before and OUT/after, and print what differs
    #[arg(long)]
    compare: bool,
    /// A table to compare [repeatable; default: `detections`, else all stored relations]
    #[arg(long, value_name = "NAME", requires = "compare")]
    table: Vec<String>,
    /// The most rows of each sort that --compare shows
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// Number of workers. The result depends on it only where a bound is met that workers share, such as `max_groups` or
    /// `max_hellos`; then a node counts what it evicts [default: the number of cores, at most 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Format of log lines on stderr; RUST_LOG selects them [default: warn; json: warn,engine=info]
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// No progress and no summary
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct CompareArgs {
    /// The `data_dir` of one run
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The `data_dir` of the other
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// A table [repeatable; default: all that both have]
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// The columns that tell rows apart, such as `window_start,host,ja4` [default: as the files say, else time,seq]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    key: Option<Vec<String>>,
    /// The most rows that are shown of each sort
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// Format of the comparison; json is a line for each table and each row
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Default, clap::Args)]
struct Overrides {
    /// An option in place of the pipeline's, such as `correlated.window=30s` or `tick=1s`; VALUE is YAML [repeatable]
    #[arg(long = "set", value_name = "NODE.OPTION=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For a terminal
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum GraphFormat {
    /// Mermaid, for Markdown and web pages
    #[default]
    Mermaid,
    /// DOT, for Graphviz
    Dot,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ListFormat {
    /// For a terminal
    #[default]
    Text,
    /// For programs
    Json,
    /// The operator reference
    Markdown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One line each, for people
    #[default]
    Text,
    /// One JSON object each
    Json,
}

/// Runs the command that the process was started with.
pub fn main(registry: Registry, web: Web, extras: Vec<Extra>) -> ExitCode {
    command(std::env::args_os(), &registry, web, extras).into()
}

/// Runs a command line, whose first word is the program's name.
pub fn command(line: impl IntoIterator<Item = OsString>, registry: &Registry, web: Web, extras: Vec<Extra>) -> Exit {
    std::panic::set_hook(Box::new(|info| complain(&format!("defect: {info}"))));
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
            // Help and version are "errors" too; clap knows which stream each belongs to.
            let _ = error.print();
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

/// Writes a command's result to stdout. A reader that has gone away, such as `head`, has what it wanted.
pub fn print(text: &str) -> Exit {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("stdout cannot be written: {error}"));
            Exit::Failed
        }
        _ => Exit::Ok,
    }
}

/// Says on stderr why a command does not succeed.
pub fn complain(message: &str) {
    match logging::is_json() {
        true => tracing::error!("{message}"),
        false => _ = writeln!(std::io::stderr(), "ja4-engine: {}", printable(message)),
    }
}

/// Says on stderr how a command gets on.
fn say(message: &str) {
    match logging::is_json() {
        true => tracing::info!("{message}"),
        false => _ = writeln!(std::io::stderr(), "{}", printable(message)),
    }
}
