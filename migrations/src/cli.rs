//! `ja4-engine migrate`.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use command_line::{Exit, Extra};
use engine::contract::Registry;

use crate::ddl::ddl;
use crate::run::{self, Answer};
use crate::server::Address;
use crate::sql::Parameters;

/// The command, for [`command_line::main`].
pub fn extra() -> Extra {
    Extra { command: definition(), run: main }
}

/// Where the server is, and what the SQL's parameters are.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The server: http[s]://[user[:password]@]host[:port]
    #[arg(long, value_name = "URL", env = "CLICKHOUSE_URL", hide_env_values = true, global = true)]
    url: Option<String>,
    /// In place of the URL's
    #[arg(long, value_name = "NAME", env = "CLICKHOUSE_USER", global = true)]
    user: Option<String>,
    /// A file with the password; CLICKHOUSE_PASSWORD is read otherwise
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// The database
    #[arg(long, value_name = "NAME", env = "CLICKHOUSE_DB", default_value = "mabase_prod", global = true)]
    database: String,
    /// A parameter of the SQL, such as `analyst=reader`; of dictionary_user, dictionary_password, data_writer,
    /// data_writer_password, analyst, analyst_password. `NAME=@FILE` reads it from a file [repeatable]
    #[arg(long = "set", value_name = "NAME=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Migrate {
    /// Show what `up` would do, with secrets left out
    Plan {
        /// Up to this number
        #[arg(long, value_name = "N")]
        to: Option<u16>,
    },
    /// Apply what is not applied, and make again what is missing of it; refused if a file that was applied has changed since
    Up {
        /// Up to this number
        #[arg(long, value_name = "N")]
        to: Option<u16>,
        /// Go on without users where the server has no user management (error 497 on CREATE USER)
        #[arg(long)]
        skip_unsupported: bool,
    },
    /// List what is applied, by number
    Status,
    /// Ask the verification queries of all that is applied
    Verify,
    /// Take back the last migration, or all above a number; what its tables hold is gone
    Down {
        /// The number to go back to; -1 takes back all
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        to: Option<i32>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Print the SQL for the tables that a pipeline writes and the migrations do not make: own tables, and own columns
    /// of theirs. No server is asked
    Ddl {
        /// The pipeline
        #[arg(value_name = "PIPELINE")]
        pipeline: PathBuf,
    },
    /// Replace the reference lists by the CSV files of a folder
    Load {
        /// With any of iplocate-ip-to-asn.csv, bot_ip.csv, bot_ja4.csv, asn_reputation.csv, browser_ja4.csv
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

fn definition() -> Command {
    let command = Command::new("migrate");
    Migrate::augment_subcommands(Target::augment_args(command))
        .about("The schema in ClickHouse: apply, verify, roll back; load reference lists")
        .subcommand_required(true)
        .arg_required_else_help(true)
}

fn main(matches: &ArgMatches, registry: &Registry) -> Exit {
    let read = Target::from_arg_matches(matches).and_then(|target| Ok((target, Migrate::from_arg_matches(matches)?)));
    let (target, command) = match read {
        Ok(read) => read,
        Err(error) => {
            let _ = error.print();
            return Exit::Refused;
        }
    };
    if let Migrate::Ddl { pipeline } = &command {
        return ddl(pipeline, registry);
    }
    let answer = target.open().and_then(|(address, parameters)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Answer::Failed(format!("no runtime: {error}")))?;
        let runner = run::Runner::new(&address, parameters);
        runtime.block_on(async {
            match command {
                Migrate::Plan { to } => runner.plan(to).await,
                Migrate::Up { to, skip_unsupported } => runner.up(to, skip_unsupported).await,
                Migrate::Status => runner.status().await,
                Migrate::Verify => runner.verify().await,
                Migrate::Down { to, yes } => runner.down(to, yes).await,
                Migrate::Ddl { .. } => Ok(()),
                Migrate::Load { folder } => crate::load::load(&runner, &folder).await,
            }
        })
    });
    match answer {
        Ok(()) => Exit::Ok,
        Err(Answer::Refused(message)) => {
            command_line::complain(&message);
            Exit::Refused
        }
        Err(Answer::Failed(message)) => {
            command_line::complain(&message);
            Exit::Failed
        }
    }
}

impl Target {
    fn open(&self) -> Result<(Address, Parameters), Answer> {
        let refused = Answer::Refused;
        let url = self.url.as_deref().ok_or_else(|| refused("which server? --url, or CLICKHOUSE_URL".to_owned()))?;
        let password = match &self.password_file {
            Some(file) => Some(secret(file)?),
            None => std::env::var("CLICKHOUSE_PASSWORD").ok(),
        };
        let address = Address::parse(url, self.user.clone(), password).map_err(refused)?;
        if self.database.is_empty() || !self.database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(refused(format!("`{}` is not a database's name: letters, digits and `_`", self.database)));
        }
        let mut parameters = Parameters::from([
            ("database".to_owned(), self.database.clone()),
            ("data_writer".to_owned(), "data_writer".to_owned()),
            ("analyst".to_owned(), "analyst".to_owned()),
            // A dictionary asks its own server, as whoever makes it.
            ("dictionary_user".to_owned(), address.user.clone().unwrap_or_else(|| "default".to_owned())),
            ("dictionary_password".to_owned(), address.password.clone().unwrap_or_default()),
        ]);
        const NAMES: [&str; 6] = [
            "dictionary_user",
            "dictionary_password",
            "data_writer",
            "data_writer_password",
            "analyst",
            "analyst_password",
        ];
        for given in &self.set {
            let (name, value) = given.split_once('=').unwrap_or((given, ""));
            if !NAMES.contains(&name) {
                return Err(refused(format!("`{name}` is not a parameter: {}", NAMES.join(", "))));
            }
            let value = value.strip_prefix('@').map_or(Ok(value.to_owned()), |file| secret(&PathBuf::from(file)))?;
            parameters.insert(name.to_owned(), value);
        }
        Ok((address, parameters))
    }
}

/// A file's first line.
fn secret(file: &PathBuf) -> Result<String, Answer> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Answer::Refused(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
