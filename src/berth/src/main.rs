//! berth: the Docker workflow without a daemon. Each command opens the root, works, and leaves.

#![forbid(unsafe_code)]

mod app;
mod cli;
mod commands;
mod exit;
mod help;
mod interrupt;
mod output;
mod user;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(commands::TREE, std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                eprintln!("{}", output::printable(&exit.message));
            }
            ExitCode::from(exit.code)
        }
    }
}
