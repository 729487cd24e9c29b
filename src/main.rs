//! Arguments and exit codes: 0 a clean stop, 1 could not start or failed while running, 2 bad
//! configuration or usage.

use std::io::Write;
use std::process::ExitCode;

mod cli;

/// Gives the memory of a burst back to the system, where that of glibc keeps nearly all of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::execute(cli::Arguments::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody can read it, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
