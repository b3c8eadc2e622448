//! Commands die at any moment, the disk is full, several work at once: what an image needs is there always, and nothing is left
//! over once it is collected. This file's own program is the command that dies (`worker`).

use rrt_content::{Hasher, Ingest, Lease, STEPS, Store, Writer};
use rrt_images::names::{Error, Filters, Image, ImageStore};
use rrt_oci::image::{Descriptor, Digest, ImageConfig, Manifest, RootFs};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A layer's size, more than one of the pieces that it is written in.
const LAYER: usize = 300_000;
const PIECE: usize = 64 << 10;
const IMAGES: u64 = 6;

/// Pseudo-random numbers (xorshift), the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % limit
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Hasher::digest_of("sha256", bytes)
}

fn layer(n: u64) -> Vec<u8> {
    (0..LAYER as u64).map(|at| (at / 1000 + n) as u8).collect()
}

/// Two layers that another image may have too, and one of its own.
fn layers_of(image: u64) -> [u64; 3] {
    [image % 2, 2 + image % 3, 10 + image]
}

/// What a pull does: each layer in pieces, the documents, the names.
fn pull(store: &ImageStore, image: u64, dice: &mut Dice) -> Result<(), Error> {
    let content = store.content();
    let lease = content.lease()?;
    let mut layers = Vec::new();
    for n in layers_of(image) {
        let bytes = layer(n);
        let digest = digest(&bytes);
        if let Ingest::Write(writer) = content.ingest(&lease, &digest, Some(LAYER as u64))? {
            write_layer(writer, &bytes, dice.below(3) == 0)?;
        }
        layers.push(Descriptor::new("layer", digest, LAYER as u64));
    }
    let put = |kind: &str, text: String| -> Result<Descriptor, Error> {
        Ok(Descriptor::new(kind, content.put(&lease, text.as_bytes())?, text.len() as u64))
    };
    let config = ImageConfig {
        architecture: format!("arch{image}"),
        rootfs: RootFs { kind: "layers".into(), diff_ids: layers.iter().map(|l| l.digest.clone()).collect() },
        ..ImageConfig::default()
    };
    let document = Manifest {
        schema_version: 2,
        media_type: String::new(),
        artifact_type: None,
        config: put("config", serde_json::to_string(&config).unwrap())?,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = put("manifest", serde_json::to_string(&document).unwrap())?;
    let mut writer = content.writer(&lease)?;
    writer.append(format!("index of {image}").as_bytes())?;
    let target = Descriptor::new("index", writer.commit()?, 0);
    let mut image_record = Image::new(target, manifest, &document, &config, &[1, 2, 3], 0);
    // Two images share each name, so one of them is dangling often.
    image_record.tags.insert(format!("app:{}", image % 3).parse().unwrap(), 0);
    store.add(image_record)
}

fn write_layer(mut writer: Writer, bytes: &[u8], in_ranges: bool) -> Result<(), Error> {
    if in_ranges {
        let missing = writer.missing(LAYER as u64);
        let failed = thread::scope(|scope| {
            let ranges = missing.into_iter().map(|range| {
                let (writer, part) = (&writer, &bytes[range.start as usize..range.end as usize]);
                scope.spawn(move || {
                    let mut pieces = part.chunks(PIECE).zip((range.start..).step_by(PIECE));
                    pieces.try_for_each(|(piece, at)| writer.write_at(piece, at))
                })
            });
            let threads: Vec<_> = ranges.collect();
            threads.into_iter().find_map(|thread| thread.join().unwrap().err())
        });
        if let Some(failed) = failed {
            return Err(failed.into());
        }
    } else {
        for piece in bytes[writer.offset() as usize..].chunks(PIECE) {
            writer.append(piece)?;
        }
    }
    Ok(writer.commit().map(drop)?)
}

/// One random command.
fn command(store: &ImageStore, dice: &mut Dice) -> Result<(), Error> {
    let name = format!("app:{}", dice.below(3));
    let nobody = |_: &Image| Vec::new();
    match dice.below(12) {
        0..=4 => pull(store, dice.below(IMAGES), dice),
        5 => store.tag(&name, &format!("other:{}", dice.below(2)).parse().unwrap()).map(drop),
        6 => store.remove(&name, dice.below(2) == 0, &nobody).map(drop),
        7 => store.prune(dice.below(4) == 0, &Filters::default(), &nobody).map(drop),
        8 => store.collect(Duration::ZERO).map(drop),
        9 => {
            let temp = store.content().temp()?;
            let written = fs::write(temp.path().join("file"), vec![1; 5000]);
            Ok(written.map_err(|e| rrt_content::Error::io("write", temp.path(), e))?)
        }
        // A download that is cut.
        10 => {
            let bytes = layer(20 + dice.below(3));
            let lease = store.content().lease()?;
            match store.content().ingest(&lease, &digest(&bytes), None)? {
                Ingest::Write(mut writer) => Ok(writer.append(&bytes[..PIECE])?),
                Ingest::Present => panic!("nobody finishes it"),
            }
        }
        // A run: all that it holds is there until it ends, whoever removes the image meanwhile.
        _ => {
            let lease = store.content().lease()?;
            let image = store.hold(&lease, &name)?;
            thread::sleep(Duration::from_millis(dice.below(5)));
            Ok(image.blobs().try_for_each(|blob| store.content().verify(blob))?)
        }
    }
}

/// Not a test: what dies. Works when the environment says where, until it has done enough.
#[test]
fn worker() {
    let Some(root) = std::env::var_os("CRASH_ROOT") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse().unwrap();
    let store = ImageStore::open(&Store::open(Path::new(&root)).unwrap()).unwrap();
    let mut dice = Dice::new(number("CRASH_SEED"));
    for _ in 0..number("CRASH_COMMANDS") {
        match command(&store, &mut dice) {
            Ok(()) | Err(Error::NoSuchImage(_) | Error::Conflict(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// Not a test: begins a layer, says so, and waits for its death.
#[test]
fn beginner() {
    let Some(root) = std::env::var_os("CRASH_BEGIN") else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    let lease = store.lease().unwrap();
    let mut writer = ingest(&store, &lease, &digest(&layer(0)));
    writer.append(&layer(0)[..2 * PIECE]).unwrap();
    println!("\nbegun");
    thread::sleep(Duration::from_secs(600));
}

fn ingest(store: &Store, lease: &Lease, digest: &Digest) -> Writer {
    match store.ingest(lease, digest, Some(LAYER as u64)).unwrap() {
        Ingest::Write(writer) => writer,
        Ingest::Present => panic!("{digest} is there"),
    }
}

fn this_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn start_worker(root: &Path, seed: u64, commands: u64, kill_at: Option<String>) -> Child {
    let mut command = this_program("worker");
    command.env("CRASH_ROOT", root).env("CRASH_SEED", seed.to_string()).env("CRASH_COMMANDS", commands.to_string());
    if let Some(step) = kill_at {
        command.env("BERTH_KILL_AT", step);
    }
    command.spawn().unwrap()
}

/// A root that goes with the value, and a file system that is mounted there, if one is.
struct Root {
    path: PathBuf,
    mounted: bool,
}

impl Root {
    fn new(test: &str) -> Root {
        let path = std::env::temp_dir().join(format!("rrt-crash-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Root { path, mounted: false }
    }

    fn store(&self) -> ImageStore {
        ImageStore::open(&Store::open(&self.path).unwrap()).unwrap()
    }

    /// Every image has all its content.
    #[track_caller]
    fn assert_whole(&self, moment: &str) {
        let problems = self.store().check(&mut |_| ()).unwrap_or_else(|e| panic!("{moment}: {e}"));
        assert!(problems.is_empty(), "{moment}: {problems:?}");
    }

    /// Everything can be pulled again, and once it is removed nothing is left.
    #[track_caller]
    fn assert_nothing_leaks(&self, moment: &str) {
        let store = self.store();
        (0..IMAGES)
            .for_each(|image| pull(&store, image, &mut Dice::new(1)).unwrap_or_else(|e| panic!("{moment}: {e}")));
        self.assert_whole(moment);
        store.prune(true, &Filters::default(), &|_| Vec::new()).unwrap();
        let mut left: Vec<_> = fs::read_dir(&self.path).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.retain(|name| name != "lost+found");
        left.sort();
        let expected = ["blobs", "boot", "images.json", "images.json.spare", "ingest", "leases", "lock", "tmp"];
        assert_eq!(left, expected, "{moment}");
        for directory in ["blobs/sha256", "blobs/sha512", "ingest", "leases", "tmp"] {
            let left: Vec<_> = fs::read_dir(self.path.join(directory)).unwrap().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{moment}: {left:?}");
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn a_kill_at_every_step_leaves_a_whole_store() {
    for (n, step) in STEPS.iter().enumerate() {
        for times in [1, 4] {
            let root = Root::new("steps");
            let moment = format!("{step}:{times}");
            let seed = (n * 10 + times) as u64;
            let status = start_worker(&root.path, seed, 400, Some(moment.clone())).wait().unwrap();
            assert_eq!(status.signal(), Some(9), "{moment} was not reached: {status}");
            root.assert_whole(&moment);
            // The next command works, and ends.
            let status = start_worker(&root.path, seed + 1000, 5, None).wait().unwrap();
            assert!(status.success(), "after {moment}: {status}");
            root.assert_nothing_leaks(&moment);
        }
    }
}

#[test]
fn several_commands_killed_at_any_moment_leave_a_whole_store() {
    let root = Root::new("moments");
    let mut dice = Dice::new(7);
    for round in 0..25 {
        let mut workers: Vec<_> = (0..3).map(|n| start_worker(&root.path, round * 3 + n, 1000, None)).collect();
        for worker in &mut workers {
            thread::sleep(Duration::from_millis(5 + dice.below(40)));
            assert!(worker.try_wait().unwrap().is_none_or(|status| status.success()), "a worker failed");
            worker.kill().unwrap();
        }
        workers.iter_mut().for_each(|worker| drop(worker.wait()));
        root.assert_whole(&format!("round {round}"));
    }
    root.assert_nothing_leaks("at the end");
}

#[test]
fn several_commands_at_once_take_nothing_from_each_other() {
    let root = Root::new("several");
    let workers: Vec<_> = (0..4).map(|n| start_worker(&root.path, 100 + n, 60, None)).collect();
    for mut worker in workers {
        let status = worker.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    root.assert_whole("after all");
    root.assert_nothing_leaks("after all");
}

/// The second process waits for the first, and goes on where that one died.
#[test]
fn who_waits_goes_on_where_the_other_was_killed() {
    let root = Root::new("waits");
    let mut first = this_program("beginner").env("CRASH_BEGIN", &root.path).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok).any(|line| line == "begun");
    assert!(said);
    let store = Store::open(&root.path).unwrap();
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            first.kill().unwrap();
        });
        let lease = store.lease().unwrap();
        let writer = ingest(&store, &lease, &digest(&layer(0)));
        assert!(begin.elapsed() >= Duration::from_millis(100), "it did not wait");
        assert_eq!(writer.offset(), 2 * PIECE as u64);
        write_layer(writer, &layer(0), false).unwrap();
    });
    first.wait().unwrap();
}

#[test]
fn a_full_tmpfs_is_said_and_nothing_breaks() {
    full_disk("tmpfs", |path| Command::new("mount").args(["-t", "tmpfs", "-o", "size=5m", "none"]).arg(path).status());
}

#[test]
fn a_full_ext4_is_said_and_nothing_breaks() {
    let disk = std::env::temp_dir().join(format!("rrt-crash-disk-{}", std::process::id()));
    full_disk("ext4", |path| {
        fs::write(&disk, "")?;
        fs::File::options().write(true).open(&disk)?.set_len(8 << 20)?;
        Command::new("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(&disk).status()?;
        Command::new("mount").args(["-o", "loop"]).args([disk.as_path(), path]).status()
    });
    fs::remove_file(disk).unwrap();
}

/// To the last block: a large write stops earlier.
fn fill(path: &Path) {
    let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Fills a small file system with commands until they fail, and on.
fn full_disk(kind: &str, mount: impl Fn(&Path) -> std::io::Result<std::process::ExitStatus>) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    let mut root = Root::new(kind);
    assert!(mount(&root.path).unwrap().success(), "mount {kind}");
    root.mounted = true;
    let store = root.store();
    let mut dice = Dice::new(3);
    let mut full = 0;
    for round in 0..60 {
        // Something else takes all that is left, for six rounds of ten.
        if (3..9).contains(&(round % 10)) {
            fill(&root.path.join("other"));
        }
        if round % 10 == 9 {
            let _ = fs::remove_file(root.path.join("other"));
        }
        match command(&store, &mut dice) {
            Ok(()) | Err(Error::NoSuchImage(_) | Error::Conflict(_)) => {}
            Err(e) => {
                let text = e.to_string();
                assert!(text.starts_with(&format!("no space left on device: {}/", root.path.display())), "{text}");
                full += 1;
            }
        }
        root.assert_whole(&format!("round {round}"));
    }
    assert!(full > 5, "the disk was full {full} times only");
    let _ = fs::remove_file(root.path.join("other"));
    store.prune(true, &Filters::default(), &|_| Vec::new()).unwrap();
    // On a disk that has no block left, images can still be removed.
    pull(&store, 1, &mut dice).unwrap();
    pull(&store, 3, &mut dice).unwrap();
    fill(&root.path.join("other"));
    assert!(pull(&store, 2, &mut dice).is_err());
    store.remove("app:0", false, &|_| Vec::new()).unwrap();
    store.remove("app:1", false, &|_| Vec::new()).unwrap();
    fs::remove_file(root.path.join("other")).unwrap();
    root.assert_nothing_leaks("at the end");
}
