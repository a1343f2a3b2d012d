//! The command line as its users see it, with the engine's registry of test kinds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod commands;
#[allow(dead_code, reason = "the engine's own tests use more of it")]
#[path = "../../../engine/tests/suite/kinds.rs"]
mod kinds;
mod schemas;
mod spool;

/// Asserts that every part is in the text.
#[track_caller]
fn shows(shown: &str, parts: &[&str]) {
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}
