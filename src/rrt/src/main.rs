//! rrt, an OCI runtime: reads the command line, calls `rrt_runtime`, prints, and exits with the code clients of runc expect.
//!
//! The order here matters: the log is opened before the command is parsed, so that a wrong flag, too, is found where the
//! engine looks for it.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod log;
mod root;
mod table;

use log::Log;
use std::ffi::OsString;
use std::process::ExitCode;

/// Measured: halves what a command spends in its own code (see `sys::alloc`).
#[global_allocator]
static ALLOCATOR: rrt_sys::alloc::Bump = rrt_sys::alloc::Bump::new();

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let program = args::program_name(argv.first());
    let words = argv.get(1..).unwrap_or_default();
    // The seal is a second execution: what the first does before it is lost. A failure comes again, and is told, in the command.
    if words.iter().any(|word| ["create", "run", "exec"].iter().any(|command| word == command)) {
        let _ = rrt_runtime::seal::ensure();
    }
    ExitCode::from(run(program, words))
}

fn run(program: &'static str, argv: &[OsString]) -> u8 {
    let (globals, request) = match args::globals(program, argv) {
        Ok(read) => read,
        Err(text) => return fail(&Log::stderr(), &text, 1),
    };
    let log = match Log::open(&globals.log) {
        Ok(log) => log,
        Err(text) => return fail(&Log::stderr(), &text, 1),
    };
    let sink = log.clone();
    rrt_runtime::log::set_sink(Box::new(move |level, text| sink.line(level, text)));
    let command = match args::command(program, &request) {
        Ok(command) => command,
        Err(text) => return fail(&log, &text, 1),
    };
    match commands::run(program, &globals, command) {
        Ok(code) => code,
        Err(failure) => fail(&log, &failure.text, failure.code),
    }
}

fn fail(log: &Log, text: &str, code: u8) -> u8 {
    log.fatal(text);
    code
}
