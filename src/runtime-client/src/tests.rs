use super::*;

/// A runtime that is a shell script.
fn script(name: &str, text: &str) -> (Runtime, PathBuf) {
    let dir = std::env::temp_dir().join(format!("rrt-client-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("make a directory");
    let (source, program) = (dir.join("source"), dir.join("runtime"));
    std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).expect("write a script");
    // By another process: a child of another test's, between fork and exec, would have our file open, and a busy file is not executed.
    let copied =
        std::process::Command::new("install").arg("-m755").args([&source, &program]).status().expect("install");
    assert!(copied.success());
    (Runtime { program, root: "/r".into(), log: dir.join("log.json"), systemd_cgroup: false }, dir)
}

#[test]
fn output_of_a_success() {
    let (runtime, dir) = script("success", "echo \"$@\"; echo [1,22]");
    let output = runtime.kill("c", 9, true).expect("a call").run().expect("success");
    let text = String::from_utf8(output).expect("text");
    assert_eq!(
        text,
        format!("--root /r --log {} --log-format json kill --all c 9\n[1,22]\n", dir.join("log.json").display())
    );
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn the_error_is_this_calls_own() {
    let (runtime, dir) = script("error", "echo stderr >&2; exit 1");
    std::fs::write(&runtime.log, "{\"level\":\"error\",\"msg\":\"an old one\"}\n").expect("write the log");
    let failure = runtime.simple("start", "c").expect("a call").run().expect_err("a failure");
    assert_eq!(failure.message, "stderr", "an error of an earlier call is not this one's");

    let (runtime, other) = script(
        "logged",
        "printf '{\"level\":\"warning\",\"msg\":\"w\"}\\nnoise\\n{\"level\":\"error\",\"msg\":\"the cause\"}\\n' >\"$4\"; exit 1",
    );
    let failure = runtime.simple("start", "c").expect("a call").run().expect_err("a failure");
    assert_eq!(failure.message, "the cause");
    for dir in [dir, other] {
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}

#[test]
fn a_runtime_that_dies_or_is_missing() {
    let (mut runtime, dir) = script("dies", "kill -9 $$");
    let failure = runtime.simple("start", "c").expect("a call").run().expect_err("a failure");
    assert_eq!(failure.message, "start was killed by signal 9");
    runtime.program = dir.join("none");
    let failure = runtime.simple("start", "c").expect("a call").run().expect_err("a failure");
    assert!(failure.message.contains("cannot execute the runtime") && failure.message.contains("none"), "{failure}");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn update_has_its_resources_on_standard_input() {
    let (runtime, dir) = script("update", "cat");
    let output = runtime.update("c", b"{\"pids\":{}}").expect("a call").run().expect("success");
    assert_eq!(output, b"{\"pids\":{}}");
    std::fs::remove_dir_all(dir).expect("clean up");
}

#[test]
fn documents() {
    assert_eq!(pids(b"[1, 2]\n"), Ok(vec![1, 2]));
    assert_eq!(pids(b"null"), Ok(vec![]));
    assert!(pids(b"nothing").is_err());
    let own = |text: &str| serde_json::from_str::<Bundle>(text).expect("a bundle").has_own_pid_namespace();
    assert!(own(r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#));
    assert!(!own(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#));
    assert!(!own("{}"));
}

#[test]
fn texts_of_runtimes() {
    let failure = |text: &str| Failure { message: text.into() };
    assert!(failure("container not running").is_gone());
    assert!(failure("kill: No such process").is_gone());
    assert!(failure("os: process already finished").is_gone());
    assert!(!failure("permission denied").is_gone());
    assert!(failure("container \"x\" does not exist").is_unknown_container());
}
