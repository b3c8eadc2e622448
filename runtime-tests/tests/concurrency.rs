//! Two commands on one container at once.

use runtime_tests::{Container, Output, known, until};

/// Runs the same command in several threads at once.
fn at_once(c: &Container, command: &str, flags: &[&str], rest: &[&str]) -> Vec<Output> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| c.call(command, flags, rest))).collect();
        calls.into_iter().map(|call| call.join().expect("a command that ends")).collect()
    })
}

fn succeeded(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| o.code == 0).count()
}

#[track_caller]
fn exactly_one(outputs: &[Output]) {
    let all = || outputs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(succeeded(outputs), 1, "{}", all());
}

#[test]
fn creates_of_one_id() {
    known!("runc", "1.2", "creates of one id can all fail");
    for _ in 0..5 {
        let c = Container::new().idle();
        c.write_config();
        exactly_one(&at_once(&c, "create", &[], &[]));
        assert_eq!(c.state()["status"], "created");
        c.start().ok();
        assert_eq!(c.exec(&[], &["echo", "whole"]).ok().stdout, "whole\n");
    }
}

#[test]
fn starts() {
    known!("runc", "1.2", "a start beside another one can wait for ever");
    for _ in 0..5 {
        let c = Container::new().sh("echo began >> /log; sleep 3600");
        c.create(&[]).ok();
        exactly_one(&at_once(&c, "start", &[], &[]));
        until("the program", || std::fs::read_to_string(c.path("/log")).is_ok_and(|l| l == "began\n"));
    }
}

#[test]
fn deletes() {
    for _ in 0..5 {
        let c = Container::new().idle().up();
        for out in at_once(&c, "delete", &["--force"], &[]) {
            assert_eq!(out.code, 0, "with --force the unknown is forgiven: {out}");
        }
        c.assert_gone();
    }
}

#[test]
fn execs() {
    let c = Container::new().idle().up();
    for _ in 0..5 {
        let outputs = at_once(&c, "exec", &[], &["sh", "-c", "echo whole"]);
        assert!(outputs.iter().all(|o| o.code == 0 && o.stdout == "whole\n"), "{}", outputs[0]);
    }
}

#[test]
fn exec_during_delete() {
    for _ in 0..10 {
        let c = Container::new().idle().up();
        std::thread::scope(|scope| {
            let exec = scope.spawn(|| c.exec(&[], &["sleep", "0.2"]));
            c.delete(&["--force"]).ok();
            // Before, during or after: it ends, and takes nothing along.
            let out = exec.join().expect("exec ends");
            assert!([0, 255, 137].contains(&out.code), "{out}");
        });
        c.assert_gone();
    }
}

#[test]
fn kill_during_start() {
    for _ in 0..10 {
        let c = Container::new().idle();
        c.create(&[]).ok();
        std::thread::scope(|scope| {
            let start = scope.spawn(|| c.start());
            c.kill("KILL");
            let _ = start.join().expect("start ends");
        });
        c.wait_status("stopped");
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

#[test]
fn delete_during_create() {
    for _ in 0..10 {
        let c = Container::new().idle();
        c.write_config();
        std::thread::scope(|scope| {
            let create = scope.spawn(|| c.call("create", &[], &[]));
            c.delete(&["--force"]);
            let _ = create.join().expect("create ends");
        });
        // The end of this container deletes what create has made since, and checks that nothing is left.
    }
}

#[test]
fn state_and_list_are_whole_at_any_time() {
    let c = Container::new().idle();
    c.write_config();
    std::fs::create_dir_all(&c.root).expect("--root, which a list needs");
    std::thread::scope(|scope| {
        let life = scope.spawn(|| {
            for _ in 0..5 {
                c.call("create", &[], &[]).ok();
                c.start().ok();
                c.delete(&["--force"]).ok();
            }
        });
        while !life.is_finished() {
            let state = c.call("state", &[], &[]);
            if state.code == 0 {
                assert_eq!(state.json()["id"], c.id.as_str());
            }
            let list = runtime_tests::run(
                std::process::Command::new(&c.binary).arg("--root").arg(&c.root).args(["list", "--format", "json"]),
                &c.dir,
            );
            assert_eq!(list.code, 0, "{list}");
            assert!(list.json().is_null() || list.json().is_array(), "{list}");
        }
    });
}

#[test]
fn many_containers() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let c = Container::new().idle().up();
                    assert_eq!(c.exec(&[], &["echo", "many"]).ok().stdout, "many\n");
                }
            });
        }
    });
}
