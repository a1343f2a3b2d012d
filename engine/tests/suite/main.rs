//! The engine as its users see it, with a registry of test kinds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod faults;
mod identity;
mod kinds;
mod runs;

use engine::plan::Plan;

/// Plans a pipeline; faults come back as the text that a user sees.
fn plan(text: &str) -> Result<Plan, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("p.yaml");
    std::fs::write(&path, text).expect("written");
    let variable = |name: &str| (name == "HOST").then(|| "localhost".to_owned());
    Plan::load_with(&path, &kinds::registry(), &variable)
        .map_err(|(problems, sources)| sources.render(&problems, false))
}

/// What a user sees when the pipeline is refused.
fn refused(text: &str) -> String {
    match plan(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(shown) => shown,
    }
}

/// Asserts that every part is in the text.
#[track_caller]
fn shows(shown: &str, parts: &[&str]) {
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}
