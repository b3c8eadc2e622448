//! The runtime dies at any moment, and `delete --force` removes everything that it leaves. Its init dies, or a system call
//! fails, and the runtime itself says so in one line and leaves nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use runtime_tests::{Background, Container, Output, known, leftovers, private_mounts, run, skip, until};
use serde_json::json;

/// One operation that is killed, on a container made by `before`.
struct Operation {
    command: &'static str,
    flags: &'static [&'static str],
    rest: &'static [&'static str],
    before: fn() -> Container,
}

const OPERATIONS: [Operation; 6] = [
    Operation { command: "create", flags: &[], rest: &[], before: written },
    Operation { command: "run", flags: &["--detach"], rest: &[], before: written },
    Operation { command: "start", flags: &[], rest: &[], before: created },
    Operation { command: "exec", flags: &[], rest: &["sleep", "0.01"], before: running },
    Operation { command: "delete", flags: &["--force"], rest: &[], before: running },
    Operation { command: "create", flags: &[], rest: &[], before: mounted_on_the_host },
];

fn written() -> Container {
    let c = Container::new().idle();
    c.write_config();
    c
}

/// Without a mount namespace.
fn mounted_on_the_host() -> Container {
    private_mounts();
    let mut c = Container::new().idle().with("/linux/maskedPaths", json!([])).with("/linux/readonlyPaths", json!([]));
    c.remove_namespace("mount");
    c.write_config();
    c
}

fn created() -> Container {
    let c = Container::new().idle();
    c.create(&[]).ok();
    c
}

fn running() -> Container {
    Container::new().idle().up()
}

/// What must be true after the death: `state` and `list` still answer, `delete --force` succeeds, and nothing is left.
#[track_caller]
fn assert_cleaned(c: &Container, moment: &str) {
    let state = c.call("state", &[], &[]);
    assert!(state.code == 0 || !state.stderr.is_empty(), "{moment}: {state}");
    let out = c.delete(&["--force"]);
    assert_eq!(out.code, 0, "{moment}: {out}");
    c.assert_gone();
    // And the name is free again.
    if moment.ends_with('0') {
        c.create(&[]).ok();
    }
}

/// Kills the operation after each of some delays (usually 25) that are spread over the time it takes.
fn killed_after_delays(operation: &Operation) {
    let c = (operation.before)();
    let begin = Instant::now();
    c.call(operation.command, operation.flags, operation.rest);
    let whole = begin.elapsed();
    drop(c);
    let steps = (points() * 5 / 12).max(1) as u32;
    for step in 0..steps {
        let c = (operation.before)();
        let mut call = c.command(operation.command, operation.flags, operation.rest);
        let running = Background::start(&mut call, &c.dir);
        let end = Instant::now() + whole * step / steps;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(50));
        }
        // Dropped, it is killed.
        drop(running);
        assert_cleaned(&c, &format!("{} killed after {:?}, step {step}", operation.command, whole * step / steps));
    }
}

/// Kills the operation at its first, second, third … system call.
fn killed_at_each_call(operation: &Operation) {
    let c = (operation.before)();
    let Ok(total) = strace(&c, operation, &["-e", "trace=all"]) else { skip!("strace is not installed") };
    drop(c);
    let stride = if std::env::var_os("RT_EVERY_CALL").is_some() { 1 } else { total / points() + 1 };
    for n in (1..=total).step_by(stride) {
        let c = (operation.before)();
        let inject = format!("inject=all:signal=SIGKILL:when={n}");
        strace(&c, operation, &["-e", &inject]).expect("strace");
        assert_cleaned(&c, &format!("{} killed at system call {n}", operation.command));
    }
}

/// At how many of its system calls an operation is killed: enough to meet each phase, or as many as RT_POINTS says where one takes
/// long. All of them with RT_EVERY_CALL.
fn points() -> usize {
    std::env::var("RT_POINTS").map_or(60, |text| text.parse().expect("RT_POINTS is a number"))
}

/// Runs the operation under strace and returns how many system calls it made.
fn strace(c: &Container, operation: &Operation, options: &[&str]) -> std::io::Result<usize> {
    under_strace(c, &c.command(operation.command, operation.flags, operation.rest), options)?;
    Ok(std::fs::read_to_string(c.dir.join("calls"))?.lines().count())
}

/// Runs a command under strace, whose log is `calls` in the bundle; an error is that there is no strace.
fn under_strace(c: &Container, command: &Command, options: &[&str]) -> std::io::Result<Output> {
    Command::new("strace").arg("-V").output()?;
    let mut outer = Command::new("strace");
    outer.current_dir(&c.dir).stdin(std::process::Stdio::null()).args(["-qqq", "-o", "calls"]).args(options);
    // Cargo's, for the tests: with it the loader of a dynamic build looks for libc in twenty places.
    outer.env_remove("LD_LIBRARY_PATH").arg(command.get_program()).args(command.get_args());
    Ok(run(&mut outer, &c.dir))
}

macro_rules! kill_points {
    ($($name:ident $calls:ident $index:literal)*) => {$(
        #[test]
        fn $name() {
            known!("runc", "*", "a killed create leaves its init or its cgroups behind");
            killed_after_delays(&OPERATIONS[$index]);
        }

        #[test]
        fn $calls() {
            known!("runc", "*", "a killed create leaves its init or its cgroups behind");
            killed_at_each_call(&OPERATIONS[$index]);
        }
    )*};
}

kill_points! {
    create_after_delays create_at_system_calls 0
    run_after_delays run_at_system_calls 1
    start_after_delays start_at_system_calls 2
    exec_after_delays exec_at_system_calls 3
    delete_after_delays delete_at_system_calls 4
    create_on_the_host_after_delays create_on_the_host_at_system_calls 5
}

/// What only the container's init calls, so that strace counts its calls and not the parent's.
const CALLS_OF_INIT: &str =
    "openat2,move_mount,mknodat,symlinkat,setsid,pivot_root,sethostname,capset,fchdir,keyctl,umount2";
/// What the parent calls to set the container up.
const CALLS_OF_THE_PARENT: &str =
    "openat,mkdirat,clone3,socketpair,open_tree,mount_setattr,fsopen,fsmount,rename,bind,sendmsg";

/// Runs a program with the fault at the first, second, third … of the calls, until the fault comes after the last.
fn with_faults(options: &[&str], calls: &str, fault: &str) {
    // 3, or more in the same proportion.
    let stride = if std::env::var_os("RT_EVERY_CALL").is_some() { 1 } else { (180 / points()).max(1) };
    let mut wrong = Vec::new();
    for n in (1..1000).step_by(stride) {
        let c = Container::new().args(&["echo", "ran"]);
        c.write_config();
        let inject = format!("inject={calls}:{fault}:when={n}");
        let options = [options, &["-e", &inject]].concat();
        let Ok(out) = under_strace(&c, &c.command("run", &[], &[]), &options) else { skip!("strace is not installed") };
        let log = std::fs::read_to_string(c.dir.join("calls")).expect("log of strace");
        let met = log.lines().find(|l| l.contains("INJECTED") || l.contains("killed by"));
        let left = leftovers(&c.id, &c.root);
        // Some faults are of no consequence: a kernel without the call has another. A debug build is linked dynamically, and the
        // loader's failures are its own.
        let told =
            out.code == 0 || out.code == 1 && out.stderr.lines().count() == 1 || met.is_some_and(|m| m.contains(".so"));
        // A fault in the removal leaves what it was removing, with its state: the end of `c` shows that delete can be repeated.
        let removable = out.stdout == "ran\n" && c.call("state", &[], &[]).code == 0;
        if !(left.is_empty() || removable) || !told {
            wrong.push(format!("{fault} at the {n}th: {}\nleft: {left:#?}\n{out}", met.unwrap_or("not met")));
        }
        if met.is_none() {
            assert!(n > 5, "the fault was never met: {log}");
            assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
            return;
        }
    }
}

#[test]
fn init_dies_at_each_of_its_calls() {
    known!("runc", "*", "its init makes other calls, from several threads");
    with_faults(&["-f"], CALLS_OF_INIT, "signal=SIGKILL");
}

#[test]
fn each_call_of_init_fails() {
    known!("runc", "*", "its init makes other calls, from several threads");
    with_faults(&["-f"], CALLS_OF_INIT, "error=EIO");
}

#[test]
fn each_call_of_the_parent_fails() {
    known!("runc", "*", "it makes other calls, from several threads");
    with_faults(&[], CALLS_OF_THE_PARENT, "error=EIO");
}

/// It moves onto the seal while it runs; where the kernel refuses a step of that, it executes itself from there.
#[test]
fn a_runtime_that_cannot_move_onto_its_seal_executes_it() {
    known!("runc", "*", "seals its init in another way");
    for fault in ["prctl:error=EPERM", "mremap:error=ENOMEM"] {
        let c = Container::new().args(&["echo", "ran"]);
        c.write_config();
        let inject = format!("inject={fault}:when=1");
        let run = c.command("run", &[], &[]);
        let Ok(out) = under_strace(&c, &run, &["-e", &inject]) else { skip!("strace is not installed") };
        let log = std::fs::read_to_string(c.dir.join("calls")).expect("log of strace");
        assert_eq!((out.code, out.stdout.as_str()), (0, "ran\n"), "{fault}: {out}");
        let sealed = log.lines().filter(|l| l.starts_with("execveat(")).collect::<Vec<_>>();
        assert_eq!(sealed.len(), 1, "{fault}: {log}");
    }
}

#[test]
fn delete_when_init_is_reaped_between_its_two_signals() {
    known!("runc", "*", "signals init once");
    let c = running();
    // Neither reaches init, so that it surely lives when its pidfd is opened for the second one; the answer is what it is when its
    // parent has been quick, and it dies while its end is waited for.
    let fault = "inject=pidfd_send_signal:error=ESRCH";
    let pid = c.pid().to_string();
    let delete = c.command("delete", &["--force"], &[]);
    let out = std::thread::scope(|scope| {
        let tracing = scope.spawn(|| under_strace(&c, &delete, &["-e", fault]));
        let log = || std::fs::read_to_string(c.dir.join("calls")).unwrap_or_default();
        until("the second signal", || tracing.is_finished() || log().matches("ESRCH").count() == 2);
        Command::new("kill").args(["-KILL", &pid]).status().expect("kill");
        let out = tracing.join().expect("the thread of strace");
        assert!(out.is_err() || log().matches("ESRCH").count() == 2, "{}", log());
        out
    });
    let Ok(out) = out else { skip!("strace is not installed") };
    out.ok();
    c.assert_gone();
}
