//! The driver against peers that behave, and against peers that do not: every call ends, and within its limit.

use super::wire::tests::peer_message;
use super::wire::{CALL, ERROR, Message, RETURN, SIGNAL};
use super::*;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

/// The limit of the calls in these tests, and how much later than it they may end on a busy machine.
const SHORT: Duration = Duration::from_millis(150);
const LATE: Duration = Duration::from_secs(4);

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A socket with somebody behind it.
struct Peer {
    place: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Each connection is handed to `serve`, one after the other, until one is over after the test's end.
    fn new(serve: impl Fn(UnixStream) + Send + 'static) -> Peer {
        Peer::times(1, serve)
    }

    /// The first time the call is read, and its answer lost; the second time `answer` gives it.
    fn with_a_lost_answer(answer: impl Fn(&mut Server, u32) + Send + 'static) -> Peer {
        let first = AtomicU32::new(0);
        Peer::times(2, move |stream| {
            let mut server = Server::new(stream);
            if first.fetch_add(1, Ordering::Relaxed) == 0 {
                while server.next().is_some_and(|(m, _)| m.member != "StartTransientUnit") {}
                return;
            }
            server.serve(|server, _, serial| answer(server, serial));
        })
    }

    fn times(connections: usize, serve: impl Fn(UnixStream) + Send + 'static) -> Peer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rrt-bus-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let place = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&place).unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..connections {
                serve(listener.accept().unwrap().0);
            }
        });
        Peer { place, thread: Some(thread) }
    }

    fn connect(&self, limit: Duration) -> Systemd {
        let places = vec![Address { place: self.place.clone(), direct: false }];
        Systemd::connect_to(false, places, limit).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.place);
        if !std::thread::panicking()
            && let Some(thread) = self.thread.take()
        {
            thread.join().unwrap();
        }
    }
}

/// The other side of a connection: reads calls, writes answers.
struct Server {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Server {
    /// After the authentication.
    fn new(stream: UnixStream) -> Server {
        let mut server = Server { stream, input: Vec::new() };
        while !server.input.ends_with(b"BEGIN\r\n") && !server.input.windows(7).any(|w| w == b"BEGIN\r\n") {
            assert!(server.more(), "no BEGIN: {:?}", String::from_utf8_lossy(&server.input));
        }
        let end = server.input.windows(7).position(|w| w == b"BEGIN\r\n").unwrap() + 7;
        assert_eq!(&server.input[..end], b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        server.input.drain(..end);
        server.send(b"DATA\r\nOK 0123456789abcdef\r\n");
        server
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer).unwrap_or(0);
        self.input.extend_from_slice(&buffer[..n]);
        n > 0
    }

    /// What comes next, and its serial; `None` at the end.
    fn next(&mut self) -> Option<(Message, u32)> {
        loop {
            if let Some((message, length)) = Message::decode(&self.input).unwrap() {
                let serial = u32::from_ne_bytes(self.input[8..12].try_into().unwrap());
                self.input.drain(..length);
                assert_eq!(message.kind, CALL);
                return Some((message, serial));
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other side may be gone already; that is what some tests are about.
        let _ = self.stream.write_all(bytes);
    }

    fn reply(&mut self, serial: u32, body: &[Value]) {
        self.send(&peer_message(RETURN, Some(serial), ["", "", ""], body));
    }

    fn refuse(&mut self, serial: u32, name: &str, text: &str) {
        self.send(&peer_message(ERROR, Some(serial), ["", "", name], &[Value::str(text)]));
    }

    fn job_removed(&mut self, job: &str, result: &str) {
        let body = [Value::Uint32(1), Value::Path(job.into()), Value::str("x.scope"), Value::str(result)];
        self.send(&peer_message(SIGNAL, None, [MANAGER, "JobRemoved", ""], &body));
    }

    /// Answers whatever every connection asks, and hands on the rest.
    fn serve(mut self, mut call: impl FnMut(&mut Server, &str, u32)) {
        while let Some((message, serial)) = self.next() {
            match message.member.as_str() {
                "Hello" => self.reply(serial, &[Value::str(":1.5")]),
                "AddMatch" => self.reply(serial, &[]),
                member => call(&mut self, member, serial),
            }
        }
    }
}

fn variant(text: &str) -> Value {
    Value::Variant(Box::new(Value::str(text)))
}

/// A unit to be made.
fn unit() -> UnitPlan {
    let facts = SystemdFacts { version: 252, user: false, control_group: "/".into() };
    UnitPlan::new(&facts, None, "box", false).unwrap()
}

/// Runs one call; it has to end within the limit and a bit, and to fail.
fn fails(peer: &Peer, limit: Duration, call: impl Fn(&mut Systemd) -> Result<(), Error>) -> String {
    let started = Instant::now();
    let mut systemd = peer.connect(limit);
    let error = call(&mut systemd).unwrap_err().to_string();
    assert!(started.elapsed() < limit + LATE, "{error} after {:?}", started.elapsed());
    error
}

#[test]
fn facts_of_a_manager() {
    for (text, version) in [("252.36-1~deb12u1", 252), ("v257", 257), ("248", 248)] {
        let peer = Peer::new(move |stream| {
            let mut answers = vec![variant("/user.slice/u"), variant(text)];
            Server::new(stream).serve(|server, member, serial| {
                assert_eq!(member, "Get");
                server.reply(serial, &[answers.pop().unwrap()]);
            });
        });
        let facts = peer.connect(LATE).facts().unwrap();
        assert_eq!(facts, SystemdFacts { version, user: false, control_group: "/user.slice/u".into() });
    }
    let peer = Peer::new(|stream| Server::new(stream).serve(|server, _, serial| server.reply(serial, &[variant("")])));
    let error = peer.connect(LATE).facts().unwrap_err().to_string();
    assert!(error.contains("systemd's Version"), "{error}");
}

#[test]
fn a_scope_is_started_and_its_job_waited_for() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, member, serial| {
            assert_eq!(member, "StartTransientUnit");
            // Signals before the answer, of this job and of others.
            server.job_removed("/job/1", "failed");
            server.job_removed("/job/2", "done");
            server.reply(serial, &[Value::Path("/job/2".into())]);
        });
    });
    peer.connect(LATE).start(&unit(), 1, || false).unwrap();
}

#[test]
fn a_job_whose_end_nobody_told_is_seen_by_its_effect() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, _, serial| server.reply(serial, &[Value::Path("/job/2".into())]));
    });
    peer.connect(Duration::from_secs(20)).start(&unit(), 1, || true).unwrap();
}

#[test]
fn a_unit_that_has_failed_is_forgotten_and_started_again() {
    let (tell, told) = mpsc::channel();
    let peer = Peer::new(move |stream| {
        let mut failed = true;
        let tell = tell.clone();
        Server::new(stream).serve(|server, member, serial| {
            tell.send(member.to_owned()).unwrap();
            match member {
                "ResetFailedUnit" => {
                    failed = false;
                    server.reply(serial, &[]);
                }
                _ if failed => {
                    server.refuse(serial, "org.freedesktop.systemd1.UnitExists", "Unit x was already loaded")
                }
                _ => {
                    server.reply(serial, &[Value::Path("/job/2".into())]);
                    server.job_removed("/job/2", "done");
                }
            }
        });
    });
    peer.connect(LATE).start(&unit(), 1, || false).unwrap();
    drop(peer);
    let calls: Vec<String> = told.into_iter().collect();
    assert_eq!(calls, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn a_unit_in_use_is_an_error_that_names_the_cure() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, member, serial| match member {
            "ResetFailedUnit" => server.reply(serial, &[]),
            _ => server.refuse(serial, "org.freedesktop.systemd1.UnitExists", "Unit rrt-box.scope was already loaded"),
        });
    });
    let error = fails(&peer, LATE, |s| s.start(&unit(), 1, || false));
    assert!(error.starts_with("start the unit rrt-box.scope: Unit rrt-box.scope was already loaded"), "{error}");
    assert!(error.contains("give another linux.cgroupsPath"), "{error}");
}

#[test]
fn refusals_are_systemds_words_with_a_hint() {
    let mut unit = unit();
    let annotations = [("org.systemd.property.FooSec", "5"), ("org.systemd.property.CollectMode", "'often'")];
    unit.add_annotations(&annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
    for (name, text, hint) in [
        (
            "org.freedesktop.DBus.Error.PropertyReadOnly",
            "Cannot set property FooUSec, or unknown property.",
            ": see the annotation org.systemd.property.FooSec, and",
        ),
        (
            "org.freedesktop.DBus.Error.InvalidArgs",
            "Invalid CollectMode setting: often",
            ": see the annotation org.systemd.property.CollectMode, and",
        ),
        (
            "System.Error.ENXIO",
            "Failed to set unit properties: Unexpected message contents",
            "org.systemd.property.CollectMode (of type \"s\"), org.systemd.property.FooSec (of type \"t\"), and",
        ),
        ("org.freedesktop.DBus.Error.AccessDenied", "Permission denied", "for root only"),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive", "for root only"),
    ] {
        let peer = Peer::new(move |stream| {
            Server::new(stream).serve(|server, _, serial| server.refuse(serial, name, text));
        });
        let error = fails(&peer, LATE, |s| s.start(&unit, 1, || false));
        assert!(error.contains(text) && error.contains(hint), "{error}");
    }
}

#[test]
fn a_job_that_fails_is_an_error() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, member, serial| match member {
            "ResetFailedUnit" => server.reply(serial, &[]),
            _ => {
                server.reply(serial, &[Value::Path("/job/2".into())]);
                server.job_removed("/job/2", "timeout");
            }
        });
    });
    let error = fails(&peer, LATE, |s| s.start(&unit(), 1, || false));
    assert!(error.contains("\"timeout\""), "{error}");
}

#[test]
fn a_bus_that_restarts_is_asked_again() {
    let peer = Peer::with_a_lost_answer(|server, serial| {
        server.reply(serial, &[Value::Path("/job/2".into())]);
        server.job_removed("/job/2", "done");
    });
    peer.connect(LATE).start(&unit(), 1, || false).unwrap();
}

#[test]
fn after_a_lost_answer_the_unit_that_exists_is_ours() {
    let peer = Peer::with_a_lost_answer(|server, serial| {
        server.refuse(serial, "org.freedesktop.systemd1.UnitExists", "x");
    });
    peer.connect(LATE).start(&unit(), 1, || true).unwrap();
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, member, serial| match member {
            "StopUnit" => server.refuse(serial, "org.freedesktop.systemd1.NoSuchUnit", "Unit x not loaded."),
            "ResetFailedUnit" => server.refuse(serial, "org.freedesktop.systemd1.NoSuchUnit", "Unit x not loaded."),
            other => panic!("{other}"),
        });
    });
    peer.connect(LATE).stop("x.scope").unwrap();
}

#[test]
fn properties_and_processes_are_handed_over() {
    let peer = Peer::new(|stream| {
        Server::new(stream).serve(|server, member, serial| {
            assert!(["SetUnitProperties", "AttachProcessesToUnit"].contains(&member), "{member}");
            server.reply(serial, &[]);
        });
    });
    let mut systemd = peer.connect(LATE);
    systemd.set_properties("x.scope", &[Property::new("TasksMax", Value::Uint64(5))]).unwrap();
    systemd.attach("x.scope", "/", 1).unwrap();
    drop(systemd);
}

/// Holds a connection until the other side hangs up.
fn hold(mut stream: UnixStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn silence_ends_with_the_limit() {
    type Silent = fn(UnixStream);
    let silent: [Silent; 4] = [
        // Not a word.
        hold,
        // Authenticated, and nothing more.
        |stream| hold(Server::new(stream).stream),
        // All is answered but the job's end never comes.
        |stream| Server::new(stream).serve(|server, _, serial| server.reply(serial, &[Value::Path("/job/2".into())])),
        // Only others' signals, for ever: they keep no wait alive.
        |stream| {
            let mut server = Server::new(stream);
            for _ in 0..200_000 {
                let signal = peer_message(
                    SIGNAL,
                    None,
                    [MANAGER, "JobRemoved", ""],
                    &[Value::Uint32(1), Value::Path("/job/9".into()), Value::str("y.scope"), Value::str("done")],
                );
                if server.stream.write_all(&signal).is_err() {
                    break;
                }
            }
        },
    ];
    for (i, silent) in silent.into_iter().enumerate() {
        let started = Instant::now();
        let error = fails(&Peer::new(silent), SHORT, |s| s.start(&unit(), 1, || false));
        assert!(error.contains("no answer from") && error.contains("within 150ms"), "{i}: {error}");
        assert!(started.elapsed() >= SHORT, "{i}: given up after {:?}", started.elapsed());
        let error = fails(&Peer::new(silent), SHORT, |s| s.stop("x.scope"));
        assert!(error.contains("no answer from"), "{i}: {error}");
        if i != 2 {
            let error = fails(&Peer::new(silent), SHORT, |s| s.facts().map(drop));
            assert!(error.contains("no answer from"), "{i}: {error}");
        }
    }
}

#[test]
fn an_answer_in_drops_is_an_answer_and_too_slow_a_one_is_none() {
    let drops = |pause: Duration| {
        move |stream: UnixStream| {
            let mut server = Server::new(stream);
            while let Some((message, serial)) = server.next() {
                if message.member == "Get" {
                    for byte in peer_message(RETURN, Some(serial), ["", "", ""], &[variant("252")]) {
                        server.send(&[byte]);
                        std::thread::sleep(pause);
                    }
                }
            }
        }
    };
    let peer = Peer::new(drops(Duration::from_micros(200)));
    assert_eq!(peer.connect(Duration::from_secs(20)).facts().unwrap().version, 252);
    let error = fails(&Peer::new(drops(Duration::from_millis(20))), SHORT, |s| s.facts().map(drop));
    assert!(error.contains("no answer from"), "{error}");
}

#[test]
fn a_peer_that_does_not_read_is_not_waited_for() {
    let peer = Peer::new(|stream| {
        // Small buffers, so that the call does not fit; then nothing is read until the other side is gone.
        let mut fds = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::HUP)];
        let _ = rustix::event::poll(&mut fds, None);
    });
    let error = fails(&peer, SHORT, |s| {
        let long = "x".repeat(900_000);
        s.set_properties("x.scope", &[Property::new("Description", Value::Str(long))])
    });
    assert!(error.contains("no answer from"), "{error}");
}

#[test]
fn a_queue_that_stays_full_is_not_waited_for() {
    let place = std::env::temp_dir().join(format!("rrt-bus-full-{}", std::process::id()));
    let listener = UnixListener::bind(&place).unwrap();
    // listen(2) again: a queue of one. Nobody accepts.
    rustix::net::listen(&listener, 0).unwrap();
    let mut held = Vec::new();
    let started = Instant::now();
    let error = loop {
        match Systemd::connect_to(false, vec![Address { place: place.clone(), direct: true }], SHORT) {
            Ok(systemd) => held.push(systemd),
            Err(e) => break e.to_string(),
        }
        assert!(held.len() < 10, "a queue without an end");
    };
    std::fs::remove_file(&place).unwrap();
    assert!(started.elapsed() < SHORT + LATE);
    assert!(error.starts_with("connect to systemd: connect(") && error.contains("EAGAIN"), "{error}");
    assert!(listener.as_raw_fd() >= 0);
}

#[test]
fn garbage_is_an_error_at_once() {
    type Garbage = (&'static [u8], &'static str);
    let garbage: [Garbage; 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak D-Bus: \"HTTP/1.1 400 Bad Request\""),
        (b"REJECTED EXTERNAL\r\n", "does not accept this user"),
        (b"ERROR\r\n", "does not speak D-Bus"),
        (b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxxx", "no byte order"),
        (b"OK 1\r\nl\x02\x00\x01\xff\xff\xff\x7f\0\0\0\0\0\0\0\0", "too long a message"),
        (b"", "the connection to"),
    ];
    for (bytes, why) in garbage {
        let peer = Peer::new(move |mut stream| {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(bytes);
            if !bytes.is_empty() {
                hold(stream);
            }
        });
        let error = fails(&peer, LATE, |s| s.facts().map(drop));
        assert!(error.contains(why), "{error}");
    }
    // A line that never ends does.
    let peer = Peer::new(|mut stream| while stream.write_all(&[b'x'; 1024]).is_ok() {});
    let error = fails(&peer, LATE, |s| s.facts().map(drop));
    assert!(error.contains("endless line"), "{error}");
    // An answer of another type.
    let peer = Peer::new(|stream| Server::new(stream).serve(|s, _, serial| s.reply(serial, &[Value::Uint32(1)])));
    let error = fails(&peer, LATE, |s| s.facts().map(drop));
    assert!(error.contains("another type"), "{error}");
}

/// A peer that sends random bytes, and messages with some of them changed: an error or an answer, never a hang or a panic.
#[test]
fn a_hostile_peer_gets_nothing_but_errors() {
    use crate::testing::Random;
    for seed in 0..40 {
        let peer = Peer::new(move |stream| {
            let mut random = Random::new(seed);
            let mut server = Server::new(stream);
            for serial in 1..40 {
                let mut bytes =
                    peer_message(RETURN, Some(serial % 4), ["a", "b", ""], &[variant("252"), Value::Uint32(7)]);
                for _ in 0..random.below(4) {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.below(256) as u8;
                }
                server.send(&bytes);
            }
        });
        let mut systemd = peer.connect(SHORT);
        let started = Instant::now();
        let _ = systemd.facts();
        let _ = systemd.stop("x.scope");
        assert!(started.elapsed() < SHORT * 4 + LATE);
        drop(systemd);
    }
}

#[test]
fn places_of_a_bus() {
    let of = |user, vars: &[(&str, &str)]| {
        let vars: Vec<(String, String)> = vars.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let find = |name: &str| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.into());
        let shown = |a: &Address| format!("{}{}", a.place.display(), if a.direct { " direct" } else { "" });
        Address::of_manager(user, find).iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(of(false, &[]), ["/run/dbus/system_bus_socket", "/run/systemd/private direct"]);
    assert_eq!(
        of(false, &[("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=x;unix:guid=1,path=/a%20b;unix:abstract=/c")]),
        ["/a b", "@/c", "/run/systemd/private direct"]
    );
    assert_eq!(
        of(true, &[("XDG_RUNTIME_DIR", "/run/user/5")]),
        ["/run/user/5/bus", "/run/user/5/systemd/private direct"]
    );
    assert_eq!(
        of(true, &[("XDG_RUNTIME_DIR", "/r"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x,guid=5")]),
        ["/x", "/r/systemd/private direct"]
    );
    assert_eq!(of(true, &[]), [""; 0]);
    for bad in ["", ";;", "unix:", "unix:path", "unix:path=%4", "unix:path=%zz", "unix:path=%é"] {
        assert_eq!(of(true, &[("DBUS_SESSION_BUS_ADDRESS", bad)]), [""; 0], "{bad}");
    }
    let error = Systemd::connect_to(true, vec![], SHORT).unwrap_err().to_string();
    assert!(error.contains("no bus is known") && error.contains("enable-linger"), "{error}");
    let gone = vec![Address { place: "/nowhere/bus".into(), direct: false }];
    let error = Systemd::connect_to(false, gone, SHORT).unwrap_err().to_string();
    assert!(error.contains("connect(\"/nowhere/bus\"): No such file or directory"), "{error}");
}
