//! The program: the engine's command line with this project's operators and web service.

mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    engine::cli::main(operators::registry(), web::start)
}
