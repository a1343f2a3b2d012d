//! What the command line takes: the commands, and the arguments of each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the run failed: an input could not be read, a sink refused, a worker panicked, another process was lost
  2    the pipeline or the command line was refused; nothing was started
  3    the web service could not start, such as when its address is in use
  4    no permission, such as to capture from an interface
  5    all input was read, but of a source nothing was understood: every line was rejected
  6    a command that looks for something, such as `explain`, has found nothing
  130  ended at once by a second SIGINT or SIGTERM";

/// TLS and HTTP bot detection: runs a YAML pipeline as one dataflow.
#[derive(Debug, Parser)]
#[command(name = "ja4-engine", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    Spool(crate::spool::Spool),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Pipeline
    pub file: PathBuf,
    /// Number of workers of a process. The result depends on it only where a bound is met that workers share, such as
    /// `max_groups` or `max_hellos`; then a node counts what it evicts [default: the number of cores, at most 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Keep the web service running when all files are read, until SIGINT or SIGTERM
    #[arg(long)]
    pub serve: bool,
    /// Address and port of the web service, in place of the pipeline's
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Format of log lines on stderr; RUST_LOG selects them [default: warn; json: what the run says too]
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Do not load the pipeline again when one of its files has changed; SIGHUP still does
    #[arg(long)]
    pub no_watch: bool,
    /// No progress and no summary
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub together: TogetherArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TogetherArgs {
    /// This process's number if several run the pipeline: the line of its own address in the hosts file, from 0
    #[arg(long, value_name = "K", requires = "hosts")]
    pub process: Option<usize>,
    /// The processes that run the pipeline together, `address:port` a line; nothing between them is encrypted or checked
    /// but the address: the ports must be reachable by them alone
    #[arg(long, value_name = "FILE", requires = "process")]
    pub hosts: Option<PathBuf>,
    /// How long the other processes are waited for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = engine::spec::humantime_duration::parse)]
    pub connect_timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Pipeline
    pub file: PathBuf,
    /// Where the results go: the files of `data_dir` to their places beneath it, all others under their names
    #[arg(long, value_name = "OUT")]
    pub data_dir: PathBuf,
    /// Directory of the spool [default: the pipeline's]; its engine may be running
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Only results from this event time on, such as 2026-05-01T12:00:00Z, or in ms since 1970; what they need from before
    /// is read as well [default: all that the spool has]
    #[arg(long, value_name = "TIME", value_parser = crate::spool::event_time)]
    pub from: Option<i64>,
    /// Only results before this event time
    #[arg(long, value_name = "TIME", value_parser = crate::spool::event_time)]
    pub to: Option<i64>,
    /// Read what durable edges have kept, in place of computing it again: what looks back further than the logs of sources
    /// reach finds it there. A changed option before such an edge changes nothing behind it
    #[arg(long)]
    pub durable: bool,
    /// A recording in place of what the source NODE received: a capture file, or a file of JSON lines [repeatable]
    #[arg(long, value_name = "NODE=PATH")]
    pub input: Vec<String>,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Run without --set too (without --set, without --input), into OUT/before and OUT/after, and print what differs
    #[arg(long)]
    pub compare: bool,
    /// A table to compare [repeatable; default: `detections`, else all stored relations]
    #[arg(long, value_name = "NAME", requires = "compare")]
    pub table: Vec<String>,
    /// The most rows of each sort that --compare shows
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub examples: usize,
    /// Number of workers. The result depends on it only where a bound is met that workers share, such as `max_groups` or
    /// `max_hellos`; then a node counts what it evicts [default: the number of cores, at most 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Format of log lines on stderr; RUST_LOG selects them [default: warn; json: what the run says too]
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// No progress and no summary
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The `data_dir` of one run
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The `data_dir` of the other
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// A table [repeatable; default: all that both have]
    #[arg(long, value_name = "NAME")]
    pub table: Vec<String>,
    /// The columns that tell rows apart, such as `window_start,host,ja4` [default: as the files say, else time,seq]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub key: Option<Vec<String>>,
    /// The most rows that are shown of each sort
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub examples: usize,
    /// Format of the comparison; json is a line for each table and each row
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportFormat,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Overrides {
    /// An option in place of the pipeline's, such as `correlated.window=30s` or `tick=1s`; VALUE is YAML [repeatable]
    #[arg(long = "set", value_name = "NODE.OPTION=VALUE")]
    pub set: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a terminal
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Mermaid, for Markdown and web pages
    #[default]
    Mermaid,
    /// DOT, for Graphviz
    Dot,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ListFormat {
    /// For a terminal
    #[default]
    Text,
    /// For programs
    Json,
    /// The operator reference
    Markdown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line each, for people
    #[default]
    Text,
    /// One JSON object each
    Json,
}
