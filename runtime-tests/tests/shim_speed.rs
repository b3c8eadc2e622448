//! Measurements of a shim, for people: `cargo test -p runtime-tests --test shim_speed -- --ignored --nocapture --test-threads 1`, with
//! `SHIM=` for a release build of ours or for containerd's own. Figures go to src/shim/DESIGN.md; nothing is asserted but that it works.

use runtime_tests::Container;
use runtime_tests::shim::{Shim, Streams, options, place, shim_binary};
use runtime_tests::wire::Message;
use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

/// Resident and private memory of a process, in KiB.
fn memory(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    let line = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)).and_then(|l| l.split_whitespace().next()?.parse().ok())
    };
    (line("Rss:").unwrap_or(0), line("Private_Dirty:").unwrap_or(0))
}

#[test]
#[ignore = "a measurement"]
fn resident_memory() {
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    // A reader for each fifo, or containerd's own shim waits.
    let open = |path: &str| File::options().read(true).write(true).open(path).expect("a fifo");
    let streams = Streams::fifos(&c, "init", true);
    let _readers = (open(&streams.stdout), open(&streams.stderr));
    shim.create(&c, &streams);
    shim.simple("Start");
    let (one, _) = memory(shim.pid);
    println!(
        "{}: one container: {one} KiB resident, {} KiB private and dirty",
        shim_binary().display(),
        memory(shim.pid).1
    );
    let mut readers = Vec::new();
    for n in 0..50 {
        let id = format!("x{n}");
        let streams = Streams::fifos(&c, &id, true);
        readers.push((open(&streams.stdout), open(&streams.stderr)));
        shim.exec(&c, &id, "sleep 3600", &streams).expect("Exec");
        let named = shim.exec_named(&id);
        shim.client.call("Start", &named).expect("Start");
    }
    let (execs, _) = memory(shim.pid);
    println!("with 50 execs: {execs} KiB, {:.1} KiB each", (execs as f64 - one as f64) / 50.0);
    let mut others = Vec::new();
    for n in 0..50 {
        let mut other = Container::new().idle();
        place(&mut other);
        other.write_config();
        let streams = Streams::fifos(&other, "init", true);
        let request = Message::new().text(1, &other.id).text(2, &other.dir.to_string_lossy());
        let request = request.number(4, 0).text(5, &streams.stdin).text(6, &streams.stdout).text(7, &streams.stderr);
        let request = request.any(10, "containerd.runc.v1.Options", options(&other).encoded());
        let readers = (open(&streams.stdout), open(&streams.stderr));
        shim.client.call("Create", &request).unwrap_or_else(|e| panic!("Create {n}: {e:?}"));
        let named = Message::new().text(1, &other.id);
        shim.client.call("Start", &named).expect("Start");
        others.push((other, readers));
    }
    let (all, _) = memory(shim.pid);
    println!("with 50 containers more: {all} KiB, {:.1} KiB each", (all as f64 - execs as f64) / 50.0);
    for (other, _) in &others {
        let named = Message::new().text(1, &other.id);
        shim.client.call("Kill", &named.clone().number(3, 9)).expect("Kill");
        shim.client.call("Wait", &named).expect("Wait");
        shim.client.call("Delete", &named).expect("Delete");
    }
    shim.finish();
}

#[test]
#[ignore = "a measurement"]
fn output_in_gigabytes_a_second() {
    const BYTES: usize = 8 << 30;
    let mut c = Container::new().sh("dd if=/dev/zero bs=65536 count=131072 2>/dev/null");
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
    println!("{}: {:.2} GB/s", shim_binary().display(), sum as f64 / time.as_secs_f64() / 1e9);
    // What one pipe alone gives, from the same program.
    let mut child = std::process::Command::new("/bin/busybox")
        .args(["dd", "if=/dev/zero", "bs=65536", "count=131072"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("busybox");
    let (mut pipe, mut buffer, begin) = (child.stdout.take().expect("a pipe"), vec![0; 1 << 16], Instant::now());
    while pipe.read(&mut buffer).expect("read") > 0 {}
    println!("one pipe: {:.2} GB/s", BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9);
    child.wait().expect("its end");
}

#[test]
#[ignore = "a measurement"]
fn latency_of_a_container() {
    let mut parts = [const { Vec::new() }; 4];
    for _ in 0..30 {
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
        for (part, time) in parts.iter_mut().zip([started, created - started, ended - created, deleted - ended]) {
            part.push(time);
        }
    }
    println!("{}", shim_binary().display());
    for (name, part) in ["shim start", "Create", "Start and Wait", "Delete"].iter().zip(&mut parts) {
        part.sort();
        println!("{name}: median {:?}, least {:?}", part[part.len() / 2], part.first().unwrap_or(&Duration::ZERO));
    }
}
