//! rrt, an OCI runtime: reads the command line, calls `rrt_runtime`, prints, and exits with the code clients of runc expect.
//!
//! The order here matters: the log is opened before the command is parsed, so that a wrong flag, too, is found where the
//! engine looks for it.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

mod args;
mod commands;
mod log;
mod root;
mod table;

use log::Log;
use rrt_runtime::seal::{self, Seal};
use rrt_sys::start::Args;
use std::ffi::OsStr;

/// Measured: halves what a command spends in its own code (see `sys::alloc`).
#[global_allocator]
static ALLOCATOR: rrt_sys::alloc::Bump = rrt_sys::alloc::Bump::new();

rrt_sys::program!(main_of);

/// Commands that enter a container.
const ENTERING: [&str; 4] = ["create", "run", "exec", "mounts"];

fn main_of(args: Args) -> u8 {
    // The seal is a second execution: what the first does before it is lost. A failure is told by the command, if it is one of these.
    let enters = args.iter().skip(1).any(|word| ENTERING.iter().any(|command| word == *command));
    let sealed = if enters { seal::ensure(args) } else { Ok(Seal::default()) };
    let argv: Vec<&OsStr> = args.iter().collect();
    let program = args::program_name(argv.first().copied());
    run(program, argv.get(1..).unwrap_or_default(), sealed)
}

fn run(program: &'static str, argv: &[&OsStr], sealed: rrt_runtime::Result<Seal>) -> u8 {
    let (globals, request) = match args::globals(argv) {
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
    match commands::run(program, &globals, command, sealed) {
        Ok(code) => code,
        Err(failure) => fail(&log, &failure.text, failure.code),
    }
}

fn fail(log: &Log, text: &str, code: u8) -> u8 {
    log.fatal(text);
    code
}
