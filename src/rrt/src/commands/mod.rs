//! The commands: take options, call the runtime, print, give the exit code.

mod check;
mod events;
pub mod mounts;
mod ps;
mod report;
mod update;

use crate::args::{Command, Globals, Target};
use crate::root;
use rrt_runtime::seal::Seal;
use rrt_runtime::{CreateOptions, Error, ExecOptions, Runtime, info};
use rrt_sys::regex::Regex;
use std::io::{self, Write};

/// A command that failed: the line to log and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// What a person and a client read.
    pub text: String,
    /// The exit code of the process.
    pub code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { text: error.to_string(), code: 1 }
    }
}

/// What clients of runc take for "exec itself failed", since 1 could be the process' own.
const EXEC_FAILED: u8 = 255;

/// Does what was asked for; `program` is the name to speak of ourselves by, `sealed` what became of the seal, without which no container
/// is entered. The result is the exit code.
///
/// # Errors
/// The command failed; nothing of it has been logged.
pub fn run(program: &str, globals: &Globals, command: Command, sealed: Result<Seal, Error>) -> Result<u8, Failure> {
    // These need no state, and must work where there can be none.
    match command {
        Command::Help(text) => return print(text.as_bytes()),
        Command::Version => return print(report::version(program).as_bytes()),
        Command::Features { probe } => return report::features(probe),
        Command::Spec { file, rootless } => return report::spec(&file, rootless),
        Command::Info => return print(info::text(&report::version(program)).as_bytes()),
        Command::Completion { shell } => return print(shell.script().as_bytes()),
        _ => {}
    }
    let runtime = Runtime {
        root: root::resolve(globals.root.as_deref())?,
        cgroup_manager: globals.cgroup_manager,
        rootless: globals.rootless,
    };
    match command {
        Command::Create(mut options) => {
            check_creation(&mut options)?;
            done(runtime.create(&options, sealed?))
        }
        Command::Run(mut options) => {
            check_creation(&mut options.create)?;
            Ok(exit_code(runtime.run(&options, sealed?)?))
        }
        Command::Plan { mut options, json } => {
            check_creation(&mut options)?;
            report::plan(&runtime, &options, json)
        }
        Command::Exec(options) => exec(&runtime, &options, sealed),
        Command::Checkpoint(options) => done(runtime.checkpoint(&options)),
        Command::Restore(mut options) => {
            check_creation(&mut options.create)?;
            Ok(exit_code(runtime.restore(&options)?))
        }
        Command::Start { id } => done(runtime.start(&id)),
        Command::Mounts { id, options } => mounts::run(&runtime, &id, &options, sealed),
        Command::Check { options, json } => check::run(&runtime, &options, json),
        Command::Wait { id } => print(format!("{}\n", runtime.wait(&id)?).as_bytes()),
        Command::Pause { id } => done(runtime.pause(&id)),
        Command::Resume { id } => done(runtime.resume(&id)),
        Command::Kill { target, signal, all } => for_each(&runtime, &target, |id| runtime.kill(id, signal, all)),
        Command::Delete { target, force } => for_each(&runtime, &target, |id| runtime.delete(id, force)),
        Command::State { id } => report::state(&runtime, &id),
        Command::List { format, quiet } => {
            if globals.root.is_some() {
                root::must_exist(&runtime.root)?;
            }
            report::list(&runtime, format, quiet)
        }
        Command::Ps { id, format, args } => ps::run(&runtime, &id, format, &args),
        Command::Events { id, interval, once } => events::run(&runtime, &id, interval, once),
        Command::Update { id, resources, devices, rdt } => update::run(&runtime, &id, resources, &devices, &rdt),
        Command::Help(_)
        | Command::Version
        | Command::Features { .. }
        | Command::Spec { .. }
        | Command::Info
        | Command::Completion { .. } => Ok(0),
    }
}

/// Makes the bundle's path absolute, since `state` shows it.
fn check_creation(options: &mut CreateOptions) -> Result<(), Error> {
    options.bundle = std::path::absolute(&options.bundle)
        .map_err(|source| Error::Io { doing: format!("--bundle {}", options.bundle.display()), source })?;
    Ok(())
}

fn exec(runtime: &Runtime, options: &ExecOptions, sealed: Result<Seal, Error>) -> Result<u8, Failure> {
    let result = if options.process.is_none() && options.args.is_empty() {
        let text = "process args cannot be empty: give a command after the container id, or --process FILE";
        Err(Error::Usage(text.into()))
    } else {
        sealed.and_then(|seal| runtime.exec(options, seal))
    };
    match result {
        Ok(code) => Ok(exit_code(code)),
        Err(error) => Err(Failure { text: format!("exec failed: {error}"), code: EXEC_FAILED }),
    }
}

/// Acts on one container or on all that match; every one is tried, the first failure is told.
fn for_each(runtime: &Runtime, target: &Target, act: impl Fn(&str) -> Result<(), Error>) -> Result<u8, Failure> {
    let pattern = match target {
        Target::Id(id) => return done(act(id)),
        Target::Pattern(pattern) => pattern,
    };
    let regex = Regex::new(pattern).map_err(|e| Error::Usage(format!("--regex {pattern:?}: {e}")))?;
    let mut result = Ok(());
    for container in runtime.list()?.iter().filter(|container| regex.is_match(&container.id)) {
        let one = act(&container.id);
        result = result.and(one);
    }
    done(result)
}

fn done(result: Result<(), Error>) -> Result<u8, Failure> {
    result?;
    Ok(0)
}

/// A process' exit code as ours. 128 + signal fits: the highest signal is 64.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(EXEC_FAILED)
}

/// Writes a command's answer. A closed pipe is a failure like any other: the caller did not get what it asked for.
fn print(bytes: &[u8]) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io { doing: "write to standard output".into(), source })?;
    Ok(0)
}

/// Serialises an answer; its types have only string keys and no I/O, so that it cannot fail.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an answer is plain data")
}
