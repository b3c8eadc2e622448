//! What a person gets wrong: each is one line that names the property and the cure, and nothing is left behind.

use std::fs;

use runtime_tests::{Container, Output, known};
use serde_json::{Value, json};

/// `create` and `run` must both fail with exit code 1, name each of `needles`, and leave nothing.
#[track_caller]
fn refused(c: &Container, needles: &[&str]) {
    c.write_config();
    refused_as_it_is(c, needles);
}

#[track_caller]
fn refused_as_it_is(c: &Container, needles: &[&str]) {
    for command in ["create", "run"] {
        c.call(command, &[], &[]).fails(1, needles);
        c.assert_gone();
    }
}

#[test]
fn missing_bundle() {
    let c = Container::new();
    for flags in [["--bundle", "/no/such/bundle"], ["-b", "no/such/bundle"]] {
        c.call("create", &flags, &[]).fails(1, &["/no/such/bundle"]);
    }
    c.assert_gone();
}

#[test]
fn missing_config() {
    refused_as_it_is(&Container::new(), &["config.json"]);
}

#[test]
fn broken_json() {
    let c = Container::new();
    fs::write(c.dir.join("config.json"), "{\n  \"ociVersion\": \"1.0.2\",\n  \"process\": [}\n}\n")
        .expect("config.json");
    refused_as_it_is(&c, &["config.json", "line 3", "column 15"]);
}

#[test]
fn empty_config() {
    let c = Container::new();
    fs::write(c.dir.join("config.json"), "").expect("config.json");
    refused_as_it_is(&c, &["config.json", "line 1"]);
    fs::write(c.dir.join("config.json"), "{}").expect("config.json");
    refused_as_it_is(&c, &[]);
}

#[test]
fn wrong_type() {
    let text = |path: &str, value: Value| Container::new().with(path, value);
    refused(&text("/process/args", json!("sh")), &["config.json", "args"]);
    refused(&text("/process/user/uid", json!("root")), &["config.json", "uid"]);
    refused(&text("/root/readonly", json!("yes")), &["config.json", "readonly"]);
    refused(&text("/linux/resources/memory", json!({ "limit": "512m" })), &["config.json", "limit"]);
    refused(&text("/mounts", json!({})), &["config.json", "mounts"]);
}

#[test]
fn unknown_namespace() {
    refused(&Container::new().namespace("space", ""), &["namespace", "space"]);
}

#[test]
fn unmappable_id() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    // gid=5 of the default devpts is in the mapping.
    refused(&c.with("/process/user/uid", json!(1000)), &["process.user.uid", "1000", "linux.uidMappings"]);
}

#[test]
fn unmappable_additional_gid() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    refused(&c.with("/process/user/additionalGids", json!([1000])), &["additionalGids", "1000", "linux.gidMappings"]);
}

#[test]
fn user_namespace_without_mappings() {
    refused(&Container::new().namespace("user", ""), &["linux.uidMappings"]);
}

#[test]
fn missing_executable_is_named_by_create() {
    let missing = |program: &str, needles: &[&str]| {
        let c = Container::new().args(&[program]);
        refused(&c, needles);
    };
    // podman turns these words into exit code 127.
    missing("no-such-program", &["process.args", "no-such-program", "executable file not found in"]);
    missing("/no/such/program", &["process.args", "/no/such/program", "no such file or directory"]);
}

#[test]
fn executable_that_may_not_be_executed() {
    // And this into 126.
    let c = Container::new().args(&["/etc/passwd"]);
    refused(&c, &["process.args", "/etc/passwd", "permission denied"]);
    let c = Container::new().args(&["/etc"]);
    c.create(&[]).fails(1, &["/etc"]);
    c.assert_gone();
}

#[test]
fn executable_of_no_known_format() {
    let c = Container::new().args(&["/tool"]);
    fs::write(c.path("/tool"), "\0\0\0not a program").expect("file");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(c.path("/tool"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let out = c.run(&[]);
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.to_lowercase().contains("exec format error"), "{out}");
}

#[test]
fn no_arguments() {
    refused(&Container::new().args(&[]), &["process.args"]);
    refused(&Container::new().args(&[""]), &["process.args"]);
}

#[test]
fn relative_cwd() {
    refused(&Container::new().with("/process/cwd", json!("tmp")), &["process.cwd", "absolute"]);
    refused(&Container::new().with("/process/cwd", json!("")), &["process.cwd"]);
}

#[test]
fn cwd_that_is_a_file() {
    let c = Container::new().with("/process/cwd", json!("/etc/passwd"));
    c.run(&[]).fails(1, &["process.cwd", "/etc/passwd"]);
    c.assert_gone();
}

#[test]
fn environment_without_an_equals_sign() {
    refused(&Container::new().with("/process/env/-", json!("NOVALUE")), &["process.env", "NOVALUE"]);
}

#[test]
fn nul_bytes() {
    for path in ["/process/args/0", "/process/cwd", "/mounts/0/destination"] {
        let out = Container::new().with(path, json!("/a\0b")).run(&[]);
        assert_ne!(out.code, 0, "{path}: {out}");
    }
}

#[test]
fn unsupported_oci_version() {
    known!("runc", "1.2", "ociVersion is not looked at");
    refused(&Container::new().with("/ociVersion", json!("99.0.0")), &["ociVersion", "99.0.0"]);
}

#[test]
fn root_that_cannot_be_written() {
    // A read-only image without the mount points that config.json asks for.
    runtime_tests::private_mounts();
    let mut c = Container::new().mount("/no/such/point", "tmpfs", "tmpfs", &[]).with("/root/path", json!("readonly"));
    c.host_tmpfs("readonly", nix::mount::MsFlags::MS_RDONLY);
    c.create(&[]).fails(1, &["mounts", "ead-only"]);
}

#[test]
fn state_directory_that_cannot_be_written() {
    let mut c = Container::new().idle();
    c.root = "/proc/no-such-directory".into();
    c.create(&[]).fails(1, &["--root", "/proc/no-such-directory"]);
    c.root = c.dir.join("state");
}

#[test]
fn name_already_taken() {
    let c = Container::new().idle().up();
    let again: Output = c.create(&[]);
    again.fails(1, &["already", &c.id]);
    assert_eq!(c.state()["status"], "running", "the first one must not suffer");
    c.call("run", &[], &[]).fails(1, &["already", &c.id]);
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn ids_that_are_no_names() {
    let mut c = Container::new().idle();
    c.write_config();
    let good = c.id.clone();
    for id in ["a/b", "..", ".", "../x", "", "a b", "a\nb", "ü", "/", "a/../b", "x%s", "a:b"] {
        c.id = id.to_owned();
        let out = c.call("create", &[], &[]);
        assert_eq!(out.code, 1, "id {id:?}: {out}");
        for command in ["state", "start", "kill", "delete"] {
            assert_ne!(c.call(command, &[], &[]).code, 0, "{command} {id:?}");
        }
    }
    c.id = good;
    let left: Vec<_> = fs::read_dir(&c.root).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ids_that_are_names() {
    for extra in ["+a", "_B", ".c", "-d"] {
        let mut c = Container::new().args(&["true"]);
        c.id.push_str(extra);
        c.run(&[]).ok();
    }
}

#[test]
fn an_id_that_is_too_long() {
    let mut c = Container::new().args(&["true"]);
    let good = c.id.clone();
    c.id = "x".repeat(1100);
    c.run(&[]).fails(1, &[]);
    c.id = good;
}

#[test]
fn the_cure_is_in_the_line() {
    if !runtime_tests::runtime().is_ours() {
        runtime_tests::skip!("the wording is rrt's own promise");
    }
    let c = Container::new().with("/linux/intelRdt", json!({ "closID": "x" }));
    refused(&c, &["linux.intelRdt", "mount -t resctrl"]);
    let c = Container::new().with("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY" }));
    refused(&c, &["linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY"]);
}
