//! Entry point of the supervisor.

use std::process::{ExitCode, Termination};

fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    match supervisor::cli::main(&line, shared::version!()) {
        Ok(exit) => exit.report(),
        Err(failure) => failure.print().report(),
    }
}
