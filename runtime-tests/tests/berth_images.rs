//! Images by the command line: the whole way of one that is made on the spot, against Debian's `docker-registry`; and wrong input, case
//! by case.

use runtime_tests::berth::{Berth, Registry, answering, berth_bin, empty_directory, run};
use runtime_tests::{Pty, skip};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A root with `bb:1` in it, and its id.
fn with_image() -> (Berth, String) {
    let berth = Berth::new();
    let archive = berth.busybox();
    let archive = archive.to_str().expect("UTF-8");
    let changes = ["-c", "CMD [\"/bin/sh\"]", "-c", "ENV A=b", "-c", "LABEL some=label", "-m", "made here"];
    let id = berth.run(&[&["import"], &changes[..], &[archive, "bb:1"]].concat()).ok();
    assert!(id.starts_with("sha256:") && id.trim_end().len() == 71, "{id}");
    (berth, id.trim_end().to_owned())
}

#[test]
fn without_arguments_it_helps() {
    let berth = Berth::new();
    let help = berth.run(&[]).ok();
    assert!(help.contains("Common Commands:") && help.contains("Global Options:"), "{help}");
    assert_eq!(berth.run(&["--help"]).ok(), help);
    assert!(berth.run(&["images", "--help"]).ok().starts_with("Usage:  berth images [OPTIONS] [REPOSITORY[:TAG]]\n"));
    assert_eq!(berth.run(&["help", "images"]).ok(), berth.run(&["images", "--help"]).ok());
    assert!(berth.run(&["--version"]).ok().starts_with("berth version "));
    assert!(!berth.root.exists(), "help makes nothing");
}

#[test]
fn wrong_commands_and_flags_have_dockers_codes() {
    let berth = Berth::new();
    for (args, code, text) in [
        (&["nope"][..], 1, "berth: unknown command: berth nope"),
        (&["image", "nope"], 1, "berth: unknown command: berth image nope"),
        (&["--nope"], 125, "unknown flag: --nope"),
        (&["images", "--nope"], 125, "unknown flag: --nope"),
        (&["load", "-x"], 125, "unknown shorthand flag: 'x' in -x"),
        (&["images", "-f", "x"], 125, "bad format of filter (expected name=value)"),
        (&["pull"], 1, "'berth pull' requires 1 argument"),
        (&["rmi"], 1, "'berth rmi' requires at least 1 argument"),
        (&["images", "a", "b"], 1, "'berth images' requires at most 1 argument"),
        (&["--root", "", "images"], 125, "--root is empty"),
        (&["--storage-driver", "nope", "info"], 125, "nope"),
    ] {
        let done = berth.run(args);
        assert_eq!(done.code, code, "{done}");
        assert!(done.stderr.contains(text) && done.stdout.is_empty(), "{done}");
    }
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let Some(registry) = Registry::start("") else { skip!("docker-registry is not installed") };
    let (berth, id) = with_image();
    let name = format!("{}/lib/bb:1", registry.address);
    berth.run(&["tag", "bb:1", &name]).ok();
    let pushed = berth.run(&["push", &name]).ok();
    let repository = name.trim_end_matches(":1");
    assert!(pushed.starts_with(&format!("The push refers to repository [{repository}]\n")), "{pushed}");
    let digest = pushed.lines().last().and_then(|line| line.strip_prefix("1: digest: ")).expect("the digest");
    let digest = digest.split_once(" size: ").expect("its size").0.to_owned();
    assert!(pushed.contains(": Pushed\n"), "{pushed}");
    assert!(berth.run(&["push", &name]).ok().contains(": Layer already exists\n"));
    assert_eq!(berth.run(&["push", "-q", &name]).ok(), format!("{name}\n"));

    let removed = berth.run(&["rmi", &name, "bb:1"]).ok();
    for line in [format!("Untagged: {name}"), format!("Untagged: {repository}@{digest}"), format!("Deleted: {id}")] {
        assert!(removed.lines().any(|l| l == line), "{line} is not in {removed}");
    }
    assert_eq!(berth.run(&["images", "-q"]).ok(), "");

    let pulled = berth.run(&["pull", &name]).ok();
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], "1: Pulling from lib/bb");
    assert!(lines.iter().any(|line| line.ends_with(": Pull complete")), "{pulled}");
    let end = [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}"), name.clone()];
    assert_eq!(lines[lines.len() - 3..], end.iter().map(String::as_str).collect::<Vec<_>>(), "{pulled}");
    assert!(!pulled.contains('\r') && !pulled.contains('\x1b'), "no terminal, no drawing: {pulled:?}");
    assert!(berth.run(&["pull", &name]).ok().contains(&format!("Status: Image is up to date for {name}\n")));
    assert_eq!(berth.run(&["pull", "--quiet", &name]).ok(), format!("{name}\n"));
    assert!(berth.run(&["pull", "-a", repository]).ok().ends_with(&format!("{repository}\n")));
    assert_eq!(berth.run(&["images", "-q", "--no-trunc"]).ok(), format!("{id}\n"));
    let by_digest = format!("{repository}@{digest}");
    assert_eq!(
        berth.run(&["inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", &by_digest]).ok(),
        format!("{id} {by_digest}\n")
    );
    berth.run(&["pull", &by_digest]).ok();
    assert!(berth.run(&["system", "check"]).ok().contains("are what their digests say"));
}

#[test]
fn lists_are_dockers() {
    let (berth, id) = with_image();
    let short = &id[7..19];
    berth.run(&["tag", "bb:1", "localhost:5000/team/tool:v2"]).ok();
    let dangling = berth.run(&["import", berth.dir.join("busybox.tar").to_str().expect("UTF-8")]).ok();
    let size = berth.run(&["images", "--format", "{{.Size}}", "bb"]).ok();
    let images = berth.run(&["images"]).ok();
    let lines: Vec<&str> = images.lines().collect();
    assert!(lines[0].starts_with("REPOSITORY                 TAG       IMAGE ID       CREATED "), "{images}");
    let row = lines.iter().find(|line| line.starts_with("bb ")).expect("bb").split_whitespace().collect::<Vec<_>>();
    assert_eq!((row[1], row[2], row[row.len() - 1]), ("1", short, size.trim_end()), "{images}");
    assert!(lines.iter().any(|line| line.starts_with("<none>                     <none>    ")), "{images}");
    assert_eq!(lines.len(), 4);

    let names = |args: &[&str]| {
        let args = [&["images", "--format", "{{.Repository}}:{{.Tag}}"], args].concat();
        let mut names: Vec<String> = berth.run(&args).ok().lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&["-f", "dangling=true"]), "<none>:<none>");
    assert_eq!(names(&["-f", "dangling=false"]), "bb:1 localhost:5000/team/tool:v2");
    assert_eq!(names(&["-f", "label=some=label"]), "bb:1 localhost:5000/team/tool:v2");
    assert_eq!(names(&["-f", "label=other"]), "");
    assert_eq!(names(&["-f", "reference=b*"]), "bb:1");
    assert_eq!(names(&["bb"]), "bb:1");
    assert_eq!(names(&["bb:2"]), "");
    assert_eq!(names(&["-f", &format!("since={}", dangling.trim_end())]), "");
    let object = json(berth.run(&["images", "--format", "json", "bb"]).ok().trim_end());
    assert_eq!((&object["ID"], &object["Tag"], &object["Digest"]), (&short.into(), &"1".into(), &"<none>".into()));
    assert!(berth.run(&["images", "--digests"]).ok().lines().next().expect("a header").contains("DIGEST"));
    let table = berth.run(&["images", "--format", "table {{.ID}}\\t{{.Tag}}", "bb"]).ok();
    assert_eq!(table, format!("IMAGE ID       TAG\n{short}   1\n"));

    let history = berth.run(&["history", "bb:1"]).ok();
    assert!(history.starts_with("IMAGE          CREATED "), "{history}");
    assert!(history.contains(short) && history.contains("made here"), "{history}");
    assert_eq!(berth.run(&["history", "-q", "--no-trunc", "bb:1"]).ok().lines().next(), Some(id.as_str()));
    let df = berth.run(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]).ok();
    assert_eq!(df.lines().next(), Some("Images 2 0"));
    assert!(berth.run(&["system", "df", "-v"]).ok().contains("UNIQUE SIZE"));
    assert!(berth.run(&["info"]).ok().contains("\n Storage Driver: "));
    assert_eq!(berth.run(&["info", "-f", "{{.DockerRootDir}}"]).ok(), format!("{}\n", berth.root.display()));
    assert_eq!(berth.run(&["version", "-f", "{{.Client.Os}}"]).ok(), "linux\n");

    let pruned = berth.run(&["image", "prune", "-f"]).ok();
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {dangling}")), "{pruned}");
    assert!(pruned.contains("\nTotal reclaimed space: "), "{pruned}");
    assert_eq!(berth.run_with(&["image", "prune", "-a"], b"n\n").code, 1);
    assert_eq!(names(&[]), "bb:1 localhost:5000/team/tool:v2");
    assert!(berth.run_with(&["image", "prune", "-a"], b"y\n").ok().contains("untagged: bb:1\n"));
    assert_eq!(berth.run(&["image", "prune", "-af"]).ok(), "Total reclaimed space: 0B\n");
    assert_eq!(fs::read_dir(berth.root.join("blobs/sha256")).expect("the blobs").count(), 0, "everything is gone");
}

#[test]
fn inspect_has_dockers_shape() {
    let (berth, id) = with_image();
    let text = berth.run(&["inspect", "bb:1"]).ok();
    assert!(
        text.starts_with(&format!(
            "[\n    {{\n        \"Id\": \"{id}\",\n        \"RepoTags\": [\n            \"bb:1\"\n        ],\n"
        )),
        "{text}"
    );
    let image = &json(&text)[0];
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["/bin/sh"]));
    assert_eq!(image["Config"]["Volumes"], Value::Null);
    assert_eq!((&image["Os"], &image["RootFS"]["Type"]), (&"linux".into(), &"layers".into()));
    assert!(image["Size"].as_u64().is_some_and(|size| size > 1_000_000), "{text}");
    let upper = image["GraphDriver"]["Data"]["UpperDir"].as_str().expect("the highest layer's directory");
    assert!(fs::symlink_metadata(format!("{upper}/bin/busybox")).is_ok(), "{upper}");
    for (template, expected) in [
        (
            "{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.Healthcheck}}",
            "[/bin/sh] [] map[] <nil>",
        ),
        ("{{json .Config.Env}} {{index .Config.Labels \"some\"}}", "[\"A=b\"] label"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}", "some=label"),
        ("{{if gt .Size 1000000}}large{{else}}small{{end}} {{len .RootFS.Layers}}", "large 1"),
    ] {
        assert_eq!(
            berth.run(&["inspect", "--format", template, &id[7..20]]).ok(),
            format!("{expected}\n"),
            "{template}"
        );
    }
    let wrong = berth.run(&["inspect", "-f", "{{.Foo}}", "bb:1"]);
    let text = "template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n";
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, text));
    let some = berth.run(&["inspect", "bb:1", "nope"]);
    assert_eq!((some.code, some.stderr.as_str()), (1, "Error: No such object: nope\n"));
    assert_eq!(json(&some.stdout)[0]["Id"], id.as_str());
    let none = berth.run(&["image", "inspect", "nope"]);
    assert_eq!(
        (none.code, none.stdout.as_str(), none.stderr.as_str()),
        (1, "[]\n", "Error: No such image: nope:latest\n")
    );
}

#[test]
fn saved_images_are_loaded() {
    let (berth, id) = with_image();
    let file = berth.dir.join("saved.tar");
    let file = file.to_str().expect("UTF-8");
    berth.run(&["save", "-o", file, "bb:1"]).ok();
    berth.run(&["rmi", "bb:1"]).ok();
    assert_eq!(berth.run(&["load", "-i", file]).ok().lines().last(), Some("Loaded image: bb:1"));
    assert_eq!(berth.run(&["images", "-q", "--no-trunc"]).ok(), format!("{id}\n"));
    // Through pipes, too.
    berth.run(&["rmi", "bb:1"]).ok();
    assert_eq!(berth.run_with(&["load", "-q"], &fs::read(file).expect("the archive")).ok(), "Loaded image: bb:1\n");
    let tar = berth.dir.join("root.tar");
    berth.run(&["export", "-o", tar.to_str().expect("UTF-8"), "bb:1"]).ok();
    let list = run(Command::new("tar").arg("-tf").arg(&tar)).ok();
    assert!(list.lines().any(|line| line.trim_start_matches("./") == "bin/busybox"), "{list}");
}

#[test]
fn a_login_is_kept_and_used() {
    let auth = "auth: { htpasswd: { realm: test, path: DIR/htpasswd } }\n";
    let Some(registry) = Registry::start(auth) else { skip!("docker-registry is not installed") };
    if run(Command::new("sh").args(["-c", "command -v htpasswd"])).code != 0 {
        skip!("htpasswd (apache2-utils) is not installed");
    }
    let made = run(Command::new("htpasswd").args(["-Bbn", "user", "secret"])).ok();
    fs::write(registry.dir().join("htpasswd"), made).expect("the users");
    let (berth, _) = with_image();
    let name = format!("{}/bb:1", registry.address);
    berth.run(&["tag", "bb:1", &name]).ok();
    let denied = berth.run(&["push", "-q", &name]);
    assert!(denied.code == 1 && denied.stderr.contains("denied"), "{denied}");
    let login = ["login", "-u", "user", "--password-stdin", &registry.address];
    berth.run_with(&login, b"wrong\n").fails(&["unauthorized"]);
    let done = berth.run_with(&login, b"secret\n");
    assert!(done.stderr.contains("WARNING! Your credentials are stored unencrypted"), "{done}");
    assert_eq!(done.ok(), "Login Succeeded\n");
    berth.run(&["push", "-q", &name]).ok();
    assert_eq!(
        berth.run(&["logout", &registry.address]).ok(),
        format!("Removing login credentials for {}\n", registry.address)
    );
    assert_eq!(berth.run(&["pull", "-q", &name]).code, 1);
    assert_eq!(berth.run(&["logout", &registry.address]).ok(), format!("Not logged in to {}\n", registry.address));
    berth.run(&["login", "--password-stdin"]).fails(&["the --password-stdin option requires --username to be set"]);
    berth.run(&["login"]).fails(&["cannot perform an interactive login from a non TTY device"]);
}

#[test]
fn wrong_input_is_one_clear_line() {
    let (berth, _) = with_image();
    berth.run(&["rmi", "nope"]).fails(&["No such image: nope:latest"]);
    berth.run(&["tag", "nope", "x"]).fails(&["No such image: nope:latest"]);
    berth.run(&["history", "nope"]).fails(&["No such image: nope:latest"]);
    berth.run(&["save", "-o", "/dev/null", "nope"]).fails(&["No such image: nope"]);
    berth.run(&["push", "nope"]).fails(&["An image does not exist locally with the tag: nope"]);
    let digest = format!("sha256:{}", "a".repeat(64));
    berth.run(&["tag", "bb:1", &format!("x@{digest}")]).fails(&["refusing to create a tag with a digest reference"]);
    berth.run(&["tag", "bb:1", "Upper"]).fails(&["Upper", "lower case"]);
    berth.run(&["tag", "bb:1", &"a".repeat(64)]).fails(&["64 hexadecimal digits"]);
    berth.run(&["tag", "bb:1", "sha256:x"]).fails(&["ambiguous tag"]);
    berth.run(&["pull", "a:b:c"]).fails(&["a:b:c"]);
    berth.run(&["pull", "x@sha256:12"]).fails(&["invalid digest"]);
    berth.run(&["pull", "--platform", "a/b/c/d", "x"]).fails(&["a/b/c/d", "os/architecture"]);
    berth.run(&["import", "/nonexistent.tar"]).fails(&["/nonexistent.tar", "No such file"]);
    berth.run(&["load", "-i", "/nonexistent.tar"]).fails(&["/nonexistent.tar", "No such file"]);
    berth.run(&["load", "-i", "/etc/passwd"]).fails(&["/etc/passwd"]);
    berth.run(&["import", "/etc/passwd"]).fails(&["/etc/passwd"]);
    berth.run(&["images", "-f", "nope=1"]).fails(&["nope"]);
    berth.run(&["images", "-f", "before=nope"]).fails(&["No such image: nope"]);
    berth.run(&["images", "--format", "{{.Foo}}"]).fails(&["template parsing error", "can't evaluate field Foo"]);
    berth.run(&["images", "--format", "{{.ID"]).fails(&["template parsing error: template: :1: unclosed action"]);
}

#[test]
fn registries_that_are_none_are_told() {
    let berth = Berth::new();
    let html = answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\nConnection: close\r\n\r\n<html><body>hi</body></html",
    );
    berth.run(&["pull", "-q", &format!("{html}/x")]).fails(&[&html, "HTML"]);
    let nothing = answering("");
    assert_eq!(berth.run(&["pull", "-q", &format!("{nothing}/x")]).code, 1);
    // A port where nobody listens: port 1 of loopback.
    berth.run(&["pull", "-q", "127.0.0.1:1/x"]).fails(&["127.0.0.1:1", "refused"]);
    let Some(registry) = Registry::start("") else { skip!("docker-registry is not installed") };
    berth.run(&["pull", "-q", &format!("{}/none:x", registry.address)]).fails(&["none:x", "not found"]);
}

#[test]
fn a_root_that_cant_be_is_told() {
    let berth = Berth::new();
    let file = berth.dir.join("file");
    fs::write(&file, "").expect("a file");
    let done = run(berth.command(&["images"]).env("BERTH_ROOT", file.join("root")));
    assert!(done.code == 125 && done.stderr.starts_with("berth: ") && done.stderr.contains("file/root"), "{done}");
    if rustix::process::geteuid().is_root() {
        let open = empty_directory("berth-user");
        fs::copy(berth_bin(), open.join("berth")).expect("a berth for everybody");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(open.join("berth")).arg("images");
        let done = run(command.env_clear().env("BERTH_ROOT", "/var/lib/berth-of-root"));
        fs::remove_dir_all(&open).expect("it goes");
        assert!(done.code == 125 && done.stderr.contains("permission denied"), "{done}");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_a_whole_store() {
    if !rustix::process::geteuid().is_root() {
        skip!("a small tmpfs is mounted");
    }
    let (berth, _) = with_image();
    let small = berth.dir.join("small");
    fs::create_dir(&small).expect("a directory");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small)).ok();
    let archive = berth.dir.join("busybox.tar");
    let done =
        run(berth.command(&["import", archive.to_str().expect("UTF-8"), "bb"]).env("BERTH_ROOT", small.join("root")));
    let images = run(berth.command(&["images", "-q"]).env("BERTH_ROOT", small.join("root")));
    run(Command::new("umount").arg(&small)).ok();
    done.fails(&["no space left on device"]);
    assert_eq!(images.ok(), "");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let (berth, _) = with_image();
    let mut child =
        berth.command(&["images"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    let status = child.wait().expect("it ends");
    // It may have written before the reader left.
    assert!(matches!(status.code(), Some(0 | 141)) && stderr.is_empty(), "{status}: {stderr}");
}

#[test]
fn berth_serves_a_registry_of_its_own() {
    let (berth, id) = with_image();
    let server = Berth::new();
    let mut command = server.command(&["registry", "serve", "--listen", "127.0.0.1:0", "-q"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
    let address = line.trim_end().strip_prefix("serving on http://").expect("its address");
    let name = format!("{address}/team/bb:1");
    berth.run(&["tag", "bb:1", &name]).ok();
    berth.run(&["push", "-q", &name]).ok();
    berth.run(&["rmi", &name, "bb:1"]).ok();
    berth.run(&["pull", "-q", &name]).ok();
    assert_eq!(berth.run(&["inspect", "-f", "{{.Id}}", &name]).ok(), format!("{id}\n"));
    // What is pushed is no image of the server's, and its prune leaves it.
    assert_eq!(server.run(&["images", "-q"]).ok(), "");
    server.run(&["image", "prune", "-af"]).ok();
    berth.run(&["rmi", &name]).ok();
    berth.run(&["pull", "-q", &name]).ok();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("it runs");
    assert!(child.wait().expect("it ends").success());
    server.run(&["registry", "serve", "--listen", "nowhere:x"]).fails(&["--listen nowhere:x", "ADDRESS:PORT"]);
}

#[test]
fn on_a_terminal_layers_are_drawn() {
    let Some(registry) = Registry::start("") else { skip!("docker-registry is not installed") };
    let (berth, _) = with_image();
    let name = format!("{}/bb:1", registry.address);
    berth.run(&["tag", "bb:1", &name]).ok();
    berth.run(&["push", "-q", &name]).ok();
    berth.run(&["rmi", &name, "bb:1"]).ok();
    let mut pty = Pty::new(24, 130);
    let mut command = berth.command(&["pull", &name]);
    let mut child = command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave()).spawn().expect("it starts");
    let seen = pty.read_until(&format!("Status: Downloaded newer image for {name}"));
    assert!(child.wait().expect("it ends").success());
    assert!(seen.contains("Downloading [") && seen.contains(">]") && seen.contains(": Pull complete"), "{seen:?}");
    assert!(seen.contains("\x1b[1A\x1b[2K\r"), "a line is drawn again where it stands: {seen:?}");
}

#[test]
fn a_password_is_not_shown() {
    let berth = Berth::new();
    let mut pty = Pty::new(24, 80);
    // Nobody listens there: it is asked for before.
    let mut command = berth.command(&["login", "127.0.0.1:1"]);
    let mut child = command.stdin(pty.slave()).stdout(pty.slave()).stderr(pty.slave()).spawn().expect("it starts");
    let mut seen = pty.read_until("Username: ");
    pty.master.write_all(b"somebody\n").expect("the terminal");
    seen += &pty.read_until("Password: ");
    pty.master.write_all(b"s3cret\n").expect("the terminal");
    seen += &pty.read_until("refused");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(seen.contains("somebody") && !seen.contains("s3cret"), "{seen:?}");
}

#[test]
fn ctrl_c_ends_a_pull_and_leaves_a_whole_store() {
    let (berth, _) = with_image();
    // It accepts, and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = format!("{}/x:1", listener.local_addr().expect("its address"));
    let mut command = berth.command(&["pull", &name]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let connection = listener.accept().expect("a request");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let done = child.wait_with_output().expect("it ends");
    drop(connection);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.trim_end().ends_with("goes on with what is there") && stderr.starts_with("berth: interrupted"),
        "{stderr}"
    );
    assert!(berth.run(&["images"]).ok().contains("bb "));
    berth.run(&["system", "check"]).ok();
}

#[test]
fn an_ordinary_user_has_a_root_of_his_own() {
    let berth = Berth::new();
    let open = empty_directory("berth-user");
    let mut command = match rustix::process::geteuid().is_root() {
        false => berth.command(&[]),
        true => {
            fs::copy(berth_bin(), open.join("berth")).expect("a berth for everybody");
            std::os::unix::fs::chown(&open, Some(65534), Some(65534)).expect("a directory for everybody");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(open.join("berth"));
            command
        }
    };
    let user = command
        .env_remove("BERTH_ROOT")
        .env("XDG_DATA_HOME", open.join("data"))
        .env("DOCKER_CONFIG", open.join("docker"));
    let shown = run(user.args(["info", "-f", "{{.DockerRootDir}} {{.Driver}}"]));
    let made = open.join("data/berth").is_dir();
    fs::remove_dir_all(&open).expect("it goes");
    let shown = shown.ok();
    assert!(shown.starts_with(&format!("{} ", open.join("data/berth").display())) && made, "{shown}");
}
