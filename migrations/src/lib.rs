//! ClickHouse: the schema as numbered SQL files, each with its verification and rollback, what applies them, and the
//! connection that the sink uses too.

/// Prints a line; a reader that has gone away, such as `head`, has what it wanted.
macro_rules! say {
    ($($text:tt)*) => {{
        command_line::print(&format!("{}\n", format_args!($($text)*)));
    }};
}

pub mod cli;
mod ddl;
mod load;
mod run;
pub mod server;
pub mod sql;
mod tables;
mod users;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order.
    pub number: u16,
    /// The rest of the file's name.
    pub name: &'static str,
    /// What makes it.
    pub up: &'static str,
    /// Queries, each behind a comment that says what it must answer.
    pub verify: &'static str,
    /// What takes it away again.
    pub down: &'static str,
}

macro_rules! migrations {
    ($(($number:literal, $name:literal, $file:literal)),* $(,)?) => {
        &[$(Migration {
            number: $number,
            name: $name,
            up: include_str!(concat!("../", $file)),
            verify: include_str!(concat!("../verify/", $file)),
            down: include_str!(concat!("../down/", $file)),
        }),*]
    };
}

/// All steps, in their order.
pub const MIGRATIONS: &[Migration] = migrations![
    (0, "database", "00_database.sql"),
    (1, "raw_tables", "01_raw_tables.sql"),
    (2, "dictionaries", "02_dictionaries.sql"),
    (3, "anubis_tables", "03_anubis_tables.sql"),
    (4, "mv_http_logs", "04_mv_http_logs.sql"),
    (5, "aggregation_tables", "05_aggregation_tables.sql"),
    (6, "ml_tables", "06_ml_tables.sql"),
    (7, "ai_features_view", "07_ai_features_view.sql"),
    (8, "users", "08_users.sql"),
    (9, "audit_table", "09_audit_table.sql"),
    (10, "engine_tables", "10_engine_tables.sql"),
    (11, "campaigns_models", "11_campaigns_models.sql"),
    (12, "ticks", "12_ticks.sql"),
    (13, "engine_grants", "13_engine_grants.sql"),
    (14, "parts", "14_parts.sql"),
    (15, "ambiguous", "15_ambiguous.sql"),
    (16, "repaired", "16_repaired.sql"),
    (17, "event_time", "17_event_time.sql"),
    (18, "features", "18_features.sql"),
    (19, "detections", "19_detections.sql"),
    (20, "detection_grants", "20_detection_grants.sql"),
    (21, "server_facts", "21_server_facts.sql"),
];

impl Migration {
    /// What tells whether a file that was applied has changed: the start of its SHA-256.
    pub fn checksum(&self) -> String {
        use sha2::{Digest, Sha256};
        Sha256::digest(self.up).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it makes the server's users, which a server without user management may go without.
    pub fn makes_users(&self) -> bool {
        self.name == "users"
    }

    /// Whether it is about users: made, or given rights.
    pub fn is_about_users(&self) -> bool {
        self.makes_users() || ["engine_grants", "detection_grants"].contains(&self.name)
    }
}
