//! Users belong to the server, not to the database: they may be older than the schema, and have other work. So only
//! those are dropped that `migrate up` has made and that have no rights elsewhere; from the others only the rights are taken
//! that the migrations gave.

use std::collections::BTreeSet;

use crate::Migration;
use crate::run::{ACCESS_DENIED, Answer, Runner, USERS};
use crate::server::rows;
use crate::sql::{Statement, escaped, identifier};

/// The parameters with names of users.
const ROLES: [&str; 2] = ["data_writer", "analyst"];

impl Runner {
    fn users(&self) -> Vec<String> {
        ROLES.iter().filter_map(|role| self.parameters.get(*role).cloned()).collect()
    }

    async fn names(&self, sql: &str) -> Result<BTreeSet<String>, Answer> {
        Ok(rows(&self.client, sql).await?.into_iter().flatten().collect())
    }

    /// Those of the migrations' users that the server has.
    async fn existing_users(&self) -> Result<BTreeSet<String>, Answer> {
        self.names(&format!("SELECT name FROM system.users WHERE name IN ({})", list(&self.users()))).await
    }

    /// Those that it does not have, so that `up` makes them. None on a server that does not say.
    pub(crate) async fn missing_users(&self) -> Result<Vec<String>, Answer> {
        let sql = format!("SELECT name FROM system.users WHERE name IN ({})", list(&self.users()));
        match rows(&self.client, &sql).await {
            Ok(found) => {
                let existing: BTreeSet<String> = found.into_iter().flatten().collect();
                Ok(self.users().into_iter().filter(|user| !existing.contains(user)).collect())
            }
            Err(error) if error.code == ACCESS_DENIED => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes from a rollback what would be done to users that are not the migrations' own, and says so.
    pub(crate) async fn spare_users(&self, migration: &Migration, list_of: &mut Vec<Statement>) -> Result<(), Answer> {
        let existing = self.existing_users().await?;
        let mut dropped = BTreeSet::new();
        if migration.makes_users() {
            self.add_created().await?;
            let ledger = self.ledger();
            // Of the last time that it was applied: a rollback makes none.
            let made = format!(
                "SELECT arrayJoin(argMax(created, at)) FROM {ledger} WHERE version = {USERS} AND state = 'applied'"
            );
            let made = self.names(&made).await?;
            let (users, database) = (list(&self.users()), escaped(self.database()));
            let elsewhere = format!(
                "SELECT user_name FROM system.grants WHERE user_name IN ({users}) AND ifNull(database, '') != '{database}' \
                 UNION ALL SELECT user_name FROM system.role_grants WHERE user_name IN ({users})"
            );
            let elsewhere = self.names(&elsewhere).await?;
            for user in &existing {
                if !made.contains(user) {
                    say!("user {user} stays: as far as is noted, `migrate up` did not make it");
                } else if elsewhere.contains(user) {
                    say!("user {user} stays: it has rights outside of {}", self.database());
                } else {
                    dropped.insert(user.clone());
                }
            }
        }
        list_of.retain(|statement| is_done(&statement.sql, &existing, &dropped));
        Ok(())
    }
}

/// Whether a rollback's statement about a user, whose name is at its end, is done.
fn is_done(sql: &str, existing: &BTreeSet<String>, dropped: &BTreeSet<String>) -> bool {
    let users = if sql.starts_with("DROP USER") { dropped } else { existing };
    users.iter().any(|user| sql.ends_with(&format!(" {}", identifier(user))))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("'{}'", escaped(name))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MIGRATIONS;
    use crate::sql::{Parameters, statements};

    #[test]
    fn a_rollback_names_its_user_at_the_end_and_drops_only_those_that_it_may() {
        let names = [("database", "d"), ("data_writer", "it`s w"), ("analyst", "a")];
        let parameters: Parameters =
            names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let both = set(&["it`s w", "a"]);
        let about = |migration: &&Migration| migration.is_about_users();
        for migration in MIGRATIONS.iter().filter(about) {
            let all = statements(migration.down, &parameters).expect("valid");
            let done = |existing: &BTreeSet<String>, dropped: &BTreeSet<String>| {
                all.iter().filter(|statement| is_done(&statement.sql, existing, dropped)).count()
            };
            assert_eq!(done(&both, &both), all.len(), "each statement is about a user: {}", migration.name);
            assert_eq!(done(&set(&[]), &set(&[])), 0, "{}", migration.name);
            let drops = all.iter().filter(|statement| statement.sql.starts_with("DROP USER")).count();
            assert_eq!(done(&both, &set(&[])), all.len() - drops, "{}", migration.name);
            assert_eq!(drops, if migration.makes_users() { 2 } else { 0 });
        }
        assert!(MIGRATIONS[usize::from(USERS)].makes_users());
    }
}
