//! The program: the engine's command line with this project's operators and web service.

use std::process::ExitCode;

fn main() -> ExitCode {
    engine::cli::main(operators::registry(), |_| Err(std::io::ErrorKind::Unsupported.into()))
}
