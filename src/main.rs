//! The program: the engine's command line with this project's operators and web service.

mod explain;
mod history;
mod init;
mod rules_export;
mod web;

use std::process::ExitCode;

/// See the comment in Cargo.toml; the figures are in benches/README.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The first argument of a query process, which this program starts itself.
const QUERY_PROCESS: &str = "query-worker";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == QUERY_PROCESS) {
        return dashboards::query_process(operators::sink::clickhouse::open_history);
    }
    // Followed files, sockets and clients of the web service each take a descriptor. What is allowed beyond the soft limit is
    // there for programs that ask.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let extras = vec![
        operators::fingerprint::command(),
        operators::data::command(),
        operators::feedback::command::command(),
        migrations::cli::extra(),
        init::command(),
        explain::command(),
        rules_export::command(),
    ];
    command_line::main(operators::registry(), web::start, extras)
}

#[cfg(test)]
mod tests {
    /// With `UPDATE_REFERENCE` set the file is written anew instead.
    #[test]
    fn the_operator_reference_says_what_the_operators_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/operators/REFERENCE.md");
        let current = command_line::list::markdown(&operators::registry());
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, &current).expect("written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == current, "write it anew: UPDATE_REFERENCE=1 cargo test --workspace reference");
    }
}
