//! Measurements of a shim, for people: `hack/bench-shim` runs them with our shim and with containerd's own, and makes a table. One
//! alone: `cargo test --release -p runtime-tests --test shim_speed -- --ignored --nocapture --test-threads 1`, with `SHIM=`.
//! Nothing is asserted but that it works.

use runtime_tests::Container;
use runtime_tests::shim::{Shim, Streams, options, place, shim_binary};
use runtime_tests::wire::Message;
use std::fs::{self, File};
use std::io::Read;
use std::time::Instant;

/// Resident and proportional size of a process, in KiB.
#[derive(Clone, Copy)]
struct Size {
    rss: f64,
    pss: f64,
}

impl Size {
    fn of(pid: u32) -> Size {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
        let line = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)).and_then(|l| l.split_whitespace().next()?.parse().ok())
        };
        Size { rss: line("Rss:").unwrap_or(0.0), pss: line("Pss:").unwrap_or(0.0) }
    }

    fn print(self, what: &str) {
        println!("| {:<26} {what:<42} RSS {:>8.1}  PSS {:>8.1}", name(), self.rss, self.pss);
    }

    /// Of each of `count` that have come since.
    fn print_each(self, before: Size, count: u32, what: &str) {
        let each = |now: f64, then: f64| (now - then) / f64::from(count);
        Size { rss: each(self.rss, before.rss), pss: each(self.pss, before.pss) }.print(what);
    }
}

fn name() -> String {
    shim_binary().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Both ends of the fifos of output: without a reader, containerd's own shim waits.
fn readers(streams: &Streams) -> (File, File) {
    let open = |path: &str| File::options().read(true).write(true).open(path).expect("a fifo");
    (open(&streams.stdout), open(&streams.stderr))
}

/// A container that runs, with three fifos, in a shim that there is already.
fn another(shim: &mut Shim) -> (Container, (File, File)) {
    let mut other = Container::new().idle();
    place(&mut other);
    other.write_config();
    let streams = Streams::fifos(&other, "init", true);
    let request = Message::new().text(1, &other.id).text(2, &other.dir.to_string_lossy());
    let request = request.number(4, 0).text(5, &streams.stdin).text(6, &streams.stdout).text(7, &streams.stderr);
    let request = request.any(10, "containerd.runc.v1.Options", options(&other).encoded());
    let readers = readers(&streams);
    shim.client.call("Create", &request).expect("Create");
    shim.client.call("Start", &Message::new().text(1, &other.id)).expect("Start");
    (other, readers)
}

#[test]
#[ignore = "a measurement"]
fn resident_memory() {
    const EXECS: u32 = 50;
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", true);
    let _readers = readers(&streams);
    shim.create(&c, &streams);
    shim.simple("Start");
    let one = Size::of(shim.pid);
    one.print("one container");
    let mut others: Vec<_> = (0..9).map(|_| another(&mut shim)).collect();
    let ten = Size::of(shim.pid);
    ten.print("ten containers of one pod");
    others.extend((0..40).map(|_| another(&mut shim)));
    let fifty = Size::of(shim.pid);
    fifty.print_each(ten, 40, "each further container, with three fifos");
    let mut open = Vec::new();
    for n in 0..EXECS {
        let id = format!("x{n}");
        let streams = Streams::fifos(&c, &id, true);
        open.push(readers(&streams));
        shim.exec(&c, &id, "sleep 3600", &streams).expect("Exec");
        let named = shim.exec_named(&id);
        shim.client.call("Start", &named).expect("Start");
    }
    Size::of(shim.pid).print_each(fifty, EXECS, "each idle exec, with three fifos");
    for (other, _) in &others {
        let named = Message::new().text(1, &other.id);
        shim.client.call("Kill", &named.clone().number(3, 9)).expect("Kill");
        shim.client.call("Wait", &named).expect("Wait");
        shim.client.call("Delete", &named).expect("Delete");
    }
    shim.finish();
    ten_pods();
}

/// A shim each; what they share of the program's file is in the proportional size.
fn ten_pods() {
    let mut pods = Vec::new();
    for _ in 0..10 {
        let mut c = Container::new().idle();
        let mut shim = Shim::start(&mut c);
        let streams = Streams::fifos(&c, "init", true);
        let open = readers(&streams);
        shim.create(&c, &streams);
        shim.simple("Start");
        pods.push((c, shim, open));
    }
    let zero = Size { rss: 0.0, pss: 0.0 };
    let sum = pods.iter().fold(zero, |sum, (_, shim, _)| {
        let size = Size::of(shim.pid);
        Size { rss: sum.rss + size.rss, pss: sum.pss + size.pss }
    });
    sum.print("ten pods of one container, together");
    for (_, shim, _) in &mut pods {
        shim.finish();
    }
}

#[test]
#[ignore = "a measurement"]
fn output_in_gigabytes_a_second() {
    const BYTES: usize = 2 << 30;
    let mut c = Container::new().sh("dd if=/dev/zero bs=65536 count=32768 2>/dev/null");
    let mut shim = Shim::start(&mut c);
    let streams = Streams::fifos(&c, "init", false);
    let hold = File::options().read(true).write(true).open(&streams.stderr).expect("a fifo");
    let path = streams.stdout.clone();
    let reader = std::thread::spawn(move || {
        let (mut file, mut buffer, mut sum) = (File::open(path).expect("the fifo"), vec![0; 1 << 16], 0);
        let begin = Instant::now();
        while sum < BYTES {
            match file.read(&mut buffer).expect("read") {
                0 => break,
                n => sum += n,
            }
        }
        (sum, begin.elapsed())
    });
    shim.create(&c, &streams);
    shim.simple("Start");
    let (sum, time) = reader.join().expect("the reader");
    shim.wait("");
    shim.finish();
    drop(hold);
    let through = sum as f64 / time.as_secs_f64() / 1e9;
    // What one pipe alone gives, from the same program.
    let mut child = std::process::Command::new("/bin/busybox")
        .args(["dd", "if=/dev/zero", "bs=65536", "count=32768"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("busybox");
    let (mut pipe, mut buffer, begin) = (child.stdout.take().expect("a pipe"), vec![0; 1 << 16], Instant::now());
    while pipe.read(&mut buffer).expect("read") > 0 {}
    let alone = BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9;
    println!("| {:<26} {through:.2} ({alone:.2})", name());
    child.wait().expect("its end");
}

/// `CALLS` times; microseconds of the shim's start, Create, Start to the end of `true`, and Delete, a line for each.
#[test]
#[ignore = "a measurement"]
fn latency_of_a_container() {
    let times = std::env::var("CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    for _ in 0..times {
        let mut c = Container::new().args(&["true"]);
        let begin = Instant::now();
        let mut shim = Shim::start(&mut c);
        let started = begin.elapsed();
        shim.create(&c, &Streams::default());
        let created = begin.elapsed();
        shim.simple("Start");
        shim.wait("");
        let ended = begin.elapsed();
        shim.simple("Delete");
        let deleted = begin.elapsed();
        shim.shutdown();
        let parts = [started, created - started, ended - created, deleted - ended].map(|part| part.as_micros());
        println!("| {} {} {} {} {}", name(), parts[0], parts[1], parts[2], parts[3]);
    }
}
