//! What the commands do. Applied versions are rows of `schema_migrations`, which only grows: the newest row of a number holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};

use clickhouse::Client;

use crate::server::{Address, ServerError, execute, rows};
use crate::sql::{Parameters, escaped, identifier, statements};
use crate::tables::{Drift, missing, tables};
use crate::{MIGRATIONS, Migration};

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would not: nothing was changed.
    Refused(String),
    /// It could not.
    Failed(String),
}

impl From<ServerError> for Answer {
    fn from(error: ServerError) -> Self {
        Self::Failed(error.message)
    }
}

/// What is known of a migration's number on the server.
struct Applied {
    state: String,
    checksum: String,
    at: String,
}

/// UNKNOWN_DATABASE and UNKNOWN_TABLE: nothing was ever applied.
const NOTHING_THERE: [Option<u32>; 2] = [Some(81), Some(60)];

/// The number of the migration that makes users.
pub(crate) const USERS: u16 = 8;

/// ACCESS_DENIED: what a server without user management answers to CREATE USER.
pub(crate) const ACCESS_DENIED: Option<u32> = Some(497);

/// The commands' connection.
pub struct Runner {
    pub(crate) client: Client,
    pub(crate) parameters: Parameters,
}

impl Runner {
    /// Nothing is connected yet.
    pub fn new(address: &Address, parameters: Parameters) -> Self {
        Self { client: address.client(), parameters }
    }

    /// Programs of before did not note which users they made.
    pub(crate) async fn add_created(&self) -> Result<(), Answer> {
        let sql = format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS created Array(String)", self.ledger());
        Ok(execute(&self.client, &sql).await?)
    }

    pub(crate) fn database(&self) -> &str {
        self.parameters.get("database").map_or("", String::as_str)
    }

    pub(crate) fn ledger(&self) -> String {
        format!("{}.schema_migrations", identifier(self.database()))
    }

    /// What is applied, by number.
    async fn applied(&self) -> Result<BTreeMap<u16, Applied>, Answer> {
        let sql = format!(
            "SELECT version, argMax(state, at), argMax(checksum, at), toString(toDateTime(max(at), 'UTC')) FROM {} GROUP BY version",
            self.ledger()
        );
        let found = match rows(&self.client, &sql).await {
            Ok(found) => found,
            Err(error) if NOTHING_THERE.contains(&error.code) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let read = |row: Vec<String>| {
            let mut columns = row.into_iter();
            let number = columns.next()?.parse().ok()?;
            Some((number, Applied { state: columns.next()?, checksum: columns.next()?, at: columns.next()? }))
        };
        let applied = found.into_iter().filter_map(read);
        Ok(applied.filter(|(_, applied)| applied.state != "rolled back").collect())
    }

    /// Notes what became of a migration, and which users it made.
    async fn note(&self, migration: &Migration, state: &str, created: &[String]) -> Result<(), Answer> {
        execute(
            &self.client,
            &format!(
                "CREATE TABLE IF NOT EXISTS {} (version UInt16, name String, checksum String, state String, \
                 at DateTime64(6) DEFAULT now64(6), program String) ENGINE = MergeTree ORDER BY (version, at)",
                self.ledger()
            ),
        )
        .await?;
        self.add_created().await?;
        let created: Vec<String> = created.iter().map(|name| format!("'{}'", escaped(name))).collect();
        let created = if created.is_empty() { String::new() } else { format!(", [{}]", created.join(", ")) };
        let column = if created.is_empty() { "" } else { ", created" };
        let sql = format!(
            "INSERT INTO {} (version, name, checksum, state, program{column}) SELECT {}, '{}', '{}', '{state}', 'ja4-engine {}'{created}",
            self.ledger(),
            migration.number,
            escaped(migration.name),
            migration.checksum(),
            env!("CARGO_PKG_VERSION")
        );
        Ok(execute(&self.client, &sql).await?)
    }

    /// What `up` has to do; refused if something applied has changed, or is not known here.
    async fn pending(&self, to: Option<u16>) -> Result<Vec<&'static Migration>, Answer> {
        let applied = self.applied().await?;
        let known = |number: &u16| MIGRATIONS.iter().any(|migration| migration.number == *number);
        if let Some(unknown) = applied.keys().find(|number| !known(number)) {
            return Err(Answer::Refused(format!(
                "migration {unknown:02} is applied and not known here: a newer program made it"
            )));
        }
        for migration in MIGRATIONS {
            if let Some(found) = applied.get(&migration.number).filter(|found| found.checksum != migration.checksum()) {
                return Err(Answer::Refused(format!(
                    "{:02}_{} has changed since it was applied at {} (checksum {} then, {} now): take it back first, or go on with the program that applied it",
                    migration.number,
                    migration.name,
                    found.at,
                    found.checksum,
                    migration.checksum()
                )));
            }
        }
        let wanted = |m: &&Migration| !applied.contains_key(&m.number) && to.is_none_or(|to| m.number <= to);
        Ok(MIGRATIONS.iter().filter(wanted).collect())
    }

    /// Prints the statements that `up` would run.
    pub async fn plan(&self, to: Option<u16>) -> Result<(), Answer> {
        let mut shown = self.parameters.clone();
        for (_, value) in shown.iter_mut().filter(|(name, _)| name.ends_with("password")) {
            "***".clone_into(value);
        }
        for name in ["data_writer_password", "analyst_password"] {
            shown.insert(name.to_owned(), "***".to_owned());
        }
        let pending = self.pending(to).await?;
        for migration in &pending {
            say!("-- {:02}_{}", migration.number, migration.name);
            for statement in statements(migration.up, &shown).map_err(Answer::Failed)? {
                say!("{};", statement.sql);
            }
        }
        for missing in self.missing(&self.applied().await?).await? {
            say!("-- {} is missing", missing.what);
            missing.sql.iter().for_each(|sql| say!("{sql};"));
        }
        say!("-- {} of {} migrations would be applied to {}", pending.len(), MIGRATIONS.len(), self.database());
        Ok(())
    }

    /// Applies what is not applied.
    pub async fn up(&self, to: Option<u16>, skip_unsupported: bool) -> Result<(), Answer> {
        let pending = self.pending(to).await?;
        // Parameters first: a missing password must not be found out half-way.
        let steps = pending.iter().map(|migration| Ok((*migration, statements(migration.up, &self.parameters)?)));
        let steps = steps.collect::<Result<Vec<_>, String>>().map_err(Answer::Refused)?;
        let mut without_users = self.applied().await?.get(&USERS).is_some_and(|found| found.state == "skipped");
        for (migration, statements) in &steps {
            let name = format!("{:02}_{}", migration.number, migration.name);
            let mut state = "applied";
            let mut created = Vec::new();
            if migration.is_about_users() && without_users {
                state = "skipped";
                self.check_syntax(&name, statements).await?;
            }
            if migration.makes_users() {
                created = self.missing_users().await?;
            }
            for statement in statements.iter().filter(|_| state == "applied") {
                match execute(&self.client, &statement.sql).await {
                    Ok(()) => {}
                    Err(error)
                        if migration.makes_users()
                            && error.code == ACCESS_DENIED
                            && statement.sql.starts_with("CREATE USER") =>
                    {
                        if !skip_unsupported {
                            return Err(Answer::Failed(format!(
                                "{name}: {}; if this server has no user management, --skip-unsupported goes on without",
                                error.message
                            )));
                        }
                        (state, without_users, created) = ("skipped", true, Vec::new());
                        self.check_syntax(&name, statements).await?;
                        break;
                    }
                    Err(error) => return Err(Answer::Failed(format!("{name}: {}", error.message))),
                }
            }
            self.note(migration, state, &created).await?;
            say!(
                "{name} {}",
                if state == "skipped" { "skipped: unsupported by this server; its syntax is right" } else { state }
            );
        }
        let missing = self.missing(&self.applied().await?).await?;
        self.mend(&missing).await?;
        if steps.is_empty() && missing.is_empty() {
            say!("nothing to do: {} is at {:02}", self.database(), MIGRATIONS.last().map_or(0, |m| m.number));
        }
        Ok(())
    }

    /// What somebody else has taken away of what these migrations made: tables and columns.
    async fn drift(&self, applied: &BTreeSet<u16>) -> Result<Vec<Drift>, Answer> {
        let migrations = MIGRATIONS.iter().filter(|migration| applied.contains(&migration.number));
        let wanted = tables(migrations, &self.parameters).map_err(Answer::Failed)?;
        let sql = format!("SELECT table, name FROM system.columns WHERE database = '{}'", escaped(self.database()));
        let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in rows(&self.client, &sql).await? {
            let mut row = row.into_iter();
            let (Some(table), Some(column)) = (row.next(), row.next()) else { continue };
            there.entry(table).or_default().insert(column);
        }
        Ok(missing(self.database(), wanted, &there))
    }

    /// Makes again what is missing.
    async fn mend(&self, drift: &[Drift]) -> Result<(), Answer> {
        for missing in drift {
            for sql in &missing.sql {
                let done = execute(&self.client, sql).await;
                done.map_err(|error| {
                    Answer::Failed(format!("{} cannot be made again: {}", missing.what, error.message))
                })?;
            }
            say!("{} was missing and is made again; what it held is gone", missing.what);
        }
        Ok(())
    }

    /// What is missing of what is applied.
    async fn missing(&self, applied: &BTreeMap<u16, Applied>) -> Result<Vec<Drift>, Answer> {
        let there = applied.iter().filter(|(_, applied)| applied.state == "applied");
        self.drift(&there.map(|(number, _)| *number).collect()).await
    }

    /// Has the server read statements that it cannot run.
    async fn check_syntax(&self, name: &str, list: &[crate::sql::Statement]) -> Result<(), Answer> {
        for statement in list {
            let parsed = rows(&self.client, &format!("EXPLAIN AST {}", statement.sql)).await;
            parsed.map_err(|error| Answer::Failed(format!("{name}: {}", error.message)))?;
        }
        Ok(())
    }

    /// Lists all migrations.
    pub async fn status(&self) -> Result<(), Answer> {
        let applied = self.applied().await?;
        for migration in MIGRATIONS {
            let state = match applied.get(&migration.number) {
                None => "pending".to_owned(),
                Some(found) if found.checksum != migration.checksum() => format!("changed since {}", found.at),
                Some(found) => format!("{} {}", found.state, found.at),
            };
            say!("{:02}_{:<20} {state}", migration.number, migration.name);
        }
        Ok(())
    }

    /// Asks the verification queries.
    pub async fn verify(&self) -> Result<(), Answer> {
        let applied = self.applied().await?;
        let mut wrong = 0;
        for migration in MIGRATIONS {
            let name = format!("{:02}_{}", migration.number, migration.name);
            match applied.get(&migration.number).map(|applied| applied.state.as_str()) {
                None => {
                    say!("{name} pending");
                    wrong += 1;
                    continue;
                }
                Some("skipped") => {
                    say!("{name} skipped: unsupported by this server");
                    continue;
                }
                Some(_) => {}
            }
            let mut faults = Vec::new();
            for query in statements(migration.verify, &self.parameters).map_err(Answer::Failed)? {
                let got = match rows(&self.client, &query.sql).await {
                    Ok(rows) => rows.iter().map(|row| row.join("\t")).collect::<Vec<_>>().join("\n"),
                    Err(error) => error.message,
                };
                if !query.expect.contains(&got) {
                    faults.push(format!("  {}\n  answers `{got}`, not `{}`", query.sql, query.expect.join("` or `")));
                }
            }
            say!("{name} {}", if faults.is_empty() { "right" } else { "wrong" });
            faults.iter().for_each(|fault| say!("{fault}"));
            wrong += usize::from(!faults.is_empty());
        }
        let missing = self.missing(&applied).await?;
        missing.iter().for_each(|missing| say!("{} is missing: `migrate up` makes it again", missing.what));
        if wrong > 0 || !missing.is_empty() {
            let missing = if missing.is_empty() {
                String::new()
            } else {
                format!("; {} columns or tables are missing", missing.len())
            };
            return Err(Answer::Failed(format!(
                "{wrong} of {} migrations are not as they should be{missing}",
                MIGRATIONS.len()
            )));
        }
        Ok(())
    }

    /// Takes back what is above `to`, the newest first; without `to` the newest alone.
    pub async fn down(&self, to: Option<i32>, yes: bool) -> Result<(), Answer> {
        let applied = self.applied().await?;
        let newest = applied.keys().max().map_or(-1, |number| i32::from(*number));
        let to = to.unwrap_or(newest - 1);
        let back: Vec<&Migration> =
            MIGRATIONS.iter().rev().filter(|m| i32::from(m.number) > to && applied.contains_key(&m.number)).collect();
        if back.is_empty() {
            say!("nothing to take back");
            return Ok(());
        }
        let names: Vec<String> = back.iter().map(|m| format!("{:02}_{}", m.number, m.name)).collect();
        if !yes {
            self.confirm(&names)?;
        }
        for (migration, name) in back.iter().zip(&names) {
            if applied.get(&migration.number).is_some_and(|found| found.state == "skipped") {
                self.note(migration, "rolled back", &[]).await?;
                say!("{name} was skipped");
                continue;
            }
            let mut list = statements(migration.down, &self.parameters).map_err(Answer::Failed)?;
            if migration.is_about_users() {
                self.spare_users(migration, &mut list).await?;
            }
            for statement in list {
                execute(&self.client, &statement.sql)
                    .await
                    .map_err(|error| Answer::Failed(format!("{name}: {}", error.message)))?;
            }
            // With the database its notes are gone.
            if migration.number > 0 {
                self.note(migration, "rolled back", &[]).await?;
            }
            say!("{name} taken back");
        }
        Ok(())
    }

    fn confirm(&self, names: &[String]) -> Result<(), Answer> {
        let what = format!("this drops what {} made in {}, with all rows", names.join(", "), self.database());
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Err(Answer::Refused(format!("{what}: --yes does it")));
        }
        print!("{what}. Type the database's name to go on: ");
        let _ = std::io::stdout().flush();
        let mut line = String::new();
        let read = input.lock().read_line(&mut line);
        if read.is_err() || line.trim() != self.database() {
            return Err(Answer::Refused("nothing was taken back".to_owned()));
        }
        Ok(())
    }
}
