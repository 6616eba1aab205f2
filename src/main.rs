//! Parses, hands over to `process`, and turns the result into an exit code.

use std::io::Write;
use std::process::ExitCode;

use ringgate::{cli, process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        cli::Outcome::Invocation(invocation) => process::command::execute(invocation),
        cli::Outcome::Print { text, status, to_stderr } => {
            // A reader that went away (head, less) is no error of ours.
            let _ = if to_stderr {
                std::io::stderr().write_all(text.as_bytes())
            } else {
                std::io::stdout().write_all(text.as_bytes())
            };
            ExitCode::from(status)
        }
    }
}
