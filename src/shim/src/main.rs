//! `containerd-shim-rrt-v2`: containerd's runtime `io.containerd.rrt.v2`.
//!
//! A small process that stays with the containers of one pod: it makes them by calling `rrt`, keeps their standard streams and their
//! ends, tells containerd what happens to them, and outlives containerd's restarts. One thread; nothing here forks by hand.
//! `start` and `delete` are the same program, called by containerd around it.

#![deny(unsafe_code)]

mod args;
mod bootstrap;
mod cgroup;
mod cleanup;
mod container;
mod daemon;
mod dispatch;
mod error;
mod info;
mod log;
mod metrics;
mod mounts;
mod oom;
mod process;
mod publish;
mod ready;
mod reaper;
mod service;
mod signal;
mod stdio;
mod time;
mod ttrpc;

use args::Args;
use error::Error;
use rrt_task_api as proto;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = args::parse(std::env::args().skip(1)).map_err(Error::unknown).and_then(|args| run(&args));
    let printed = result.and_then(|bytes| std::io::stdout().write_all(&bytes).map_err(|e| Error::system("write", e)));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "io.containerd.rrt.v2: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the arguments ask for; the result is for standard output.
fn run(args: &Args) -> Result<Vec<u8>, Error> {
    log::set_debug(args.debug);
    if args.version {
        return Ok(info::version().into_bytes());
    }
    if args.info {
        return info::info();
    }
    if args.namespace.is_empty() {
        return Err(Error::unknown("shim namespace cannot be empty"));
    }
    match args.action.as_str() {
        "start" => bootstrap::start(args),
        "delete" => on_this_thread(cleanup::delete(args)),
        mounts::idmap::ACTION => {
            mounts::idmap::hold_namespace();
            Ok(Vec::new())
        }
        "" => on_this_thread(daemon::run(args)).map(|()| Vec::new()),
        other => Err(Error::unknown(format!("unknown action {other:?}: it is start or delete"))),
    }
}

fn on_this_thread<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::system("epoll_create1", e))?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
