use super::*;
use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A root that goes with the value.
struct Root(PathBuf);

impl Root {
    fn new() -> (Root, Store) {
        let path = std::env::temp_dir().join(format!("rrt-content-{}", lease::unique()));
        let store = Store::open(&path).unwrap();
        (Root(path), store)
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let list = fs::read_dir(self.0.join(directory)).unwrap();
        let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Hasher::digest_of("sha256", bytes)
}

fn write(store: &Store, lease: &Lease, digest: &Digest, size: Option<u64>) -> Writer {
    match store.ingest(lease, digest, size).unwrap() {
        Ingest::Write(writer) => writer,
        Ingest::Present => panic!("{digest} is there"),
    }
}

fn collect(store: &Store, kept: &[&Digest]) -> Collected {
    let lock = store.exclusive().unwrap();
    store.collect(&lock, &kept.iter().map(|d| (*d).clone()).collect::<HashSet<_>>(), Duration::ZERO).unwrap()
}

#[test]
fn the_root_is_made_for_its_owner() {
    let (root, _) = Root::new();
    let mode = |path: &str| fs::metadata(root.0.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("blobs"), mode("blobs/sha256"), mode("ingest")), (0o711, 0o700, 0o700, 0o700));
    assert_eq!((mode("leases"), mode("tmp"), mode("lock")), (0o700, 0o700, 0o600));
    Store::open(&root.0).unwrap();
    let error = Store::open(Path::new("/proc/berth")).unwrap_err().to_string();
    assert!(error.contains("/proc/berth"), "{error}");
}

#[test]
fn a_blob_is_written_and_read() {
    let (root, store) = Root::new();
    let lease = store.lease().unwrap();
    for (name, bytes) in [("sha256", &b"hello"[..]), ("sha512", b"hello"), ("sha256", b"")] {
        let digest = Hasher::digest_of(name, bytes);
        assert!(!store.has(&digest) && matches!(store.size(&digest), Err(Error::Missing(_))));
        let mut writer = write(&store, &lease, &digest, Some(bytes.len() as u64));
        bytes.chunks(2).for_each(|part| writer.write_all(part).unwrap());
        assert_eq!(writer.commit().unwrap(), digest);
        assert_eq!(
            (store.read(&digest, 5).unwrap(), store.size(&digest).unwrap()),
            (bytes.to_vec(), bytes.len() as u64)
        );
        assert!(matches!(store.ingest(&lease, &digest, None).unwrap(), Ingest::Present));
        assert_eq!(fs::metadata(store.path(&digest)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(store.blobs().unwrap().len(), 3);
    assert!(matches!(store.read(&digest(b"hello"), 4), Err(Error::TooLarge { size: 5, limit: 4, .. })));
    assert!(matches!(store.ingest(&lease, &digest(b"hello"), Some(6)), Err(Error::Size { expected: 6, found: 5, .. })));
    assert_eq!(root.files("ingest"), [""; 0]);
}

#[test]
fn wrong_content_is_deleted_and_short_content_stays() {
    let (root, store) = Root::new();
    let lease = store.lease().unwrap();
    let wanted = digest(b"hello");
    let mut writer = write(&store, &lease, &wanted, Some(5));
    writer.write_all(b"hel").unwrap();
    assert!(matches!(writer.commit(), Err(Error::Size { expected: 5, found: 3, .. })));
    let mut writer = write(&store, &lease, &wanted, Some(5));
    assert_eq!(writer.offset(), 3);
    let error = writer.write_all(b"lo!").unwrap_err();
    assert_eq!(error.to_string(), format!("wrong size of {wanted}: 6 bytes, not 5"));
    writer.write_all(b"p!").unwrap();
    assert!(matches!(writer.commit(), Err(Error::Digest { .. })));
    assert_eq!(root.files("ingest"), [""; 0]);
    let mut writer = write(&store, &lease, &wanted, Some(5));
    assert_eq!(writer.offset(), 0);
    writer.write_all(b"hello").unwrap();
    writer.commit().unwrap();
}

#[test]
fn a_cut_download_goes_on_with_its_hash() {
    let (root, store) = Root::new();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    let wanted = digest(&bytes);
    let lease = store.lease().unwrap();
    let mut writer = write(&store, &lease, &wanted, None);
    writer.write_all(&bytes[..2_500_000]).unwrap();
    drop((writer, lease));
    let lease = store.lease().unwrap();
    let mut writer = write(&store, &lease, &wanted, Some(3_000_000));
    assert_eq!(writer.offset(), 2_500_000);
    writer.write_all(&bytes[2_500_000..]).unwrap();
    writer.commit().unwrap();
    store.verify(&wanted).unwrap();
    // More than the blob has is from something else.
    let wanted = digest(b"x");
    fs::write(root.0.join("ingest").join(wanted.as_str().replace(':', "-")), "xyz").unwrap();
    assert_eq!(write(&store, &lease, &wanted, Some(1)).offset(), 0);
}

#[test]
fn ranges_come_in_any_order_and_go_on() {
    let (root, store) = Root::new();
    let bytes: Vec<u8> = (0..9_000_000u32).map(|n| (n / 5) as u8).collect();
    let (wanted, size) = (digest(&bytes), 9_000_000);
    let lease = store.lease().unwrap();
    let mut writer = write(&store, &lease, &wanted, Some(size));
    writer.write_all(&bytes[..1000]).unwrap();
    writer.write_at(&bytes[8_000_000..], 8_000_000).unwrap();
    writer.write_at(&bytes[5_000_000..5_500_000], 5_000_000).unwrap();
    assert!(matches!(writer.write_at(b"x", size), Err(Error::Size { .. })));
    assert_eq!(writer.missing(size), [1000..5_000_000, 5_500_000..8_000_000]);
    assert!(matches!(writer.commit(), Err(Error::Size { found: 1000, .. })));

    let writer = write(&store, &lease, &wanted, Some(size));
    let missing = writer.missing(size);
    assert_eq!((writer.offset(), &missing[..]), (1000, &[1000..5_000_000, 5_500_000..8_000_000][..]));
    thread::scope(|scope| {
        for range in missing {
            let (writer, bytes) = (&writer, &bytes);
            scope.spawn(move || {
                for at in range.clone().step_by(65536) {
                    let end = range.end.min(at + 65536);
                    writer.write_at(&bytes[at as usize..end as usize], at).unwrap();
                }
            });
        }
    });
    writer.commit().unwrap();
    store.verify(&wanted).unwrap();
    assert_eq!(root.files("ingest"), [""; 0]);
}

/// A record that outlived its data says nothing about the next file of that name.
#[test]
fn a_stale_record_is_not_believed() {
    let (root, store) = Root::new();
    let wanted = digest(b"hello");
    let record = root.0.join("ingest").join(wanted.as_str().replace(':', "-") + ".parts");
    fs::write(&record, "0-5 \n").unwrap();
    let lease = store.lease().unwrap();
    let writer = write(&store, &lease, &wanted, Some(5));
    assert_eq!((writer.offset(), record.exists()), (0, false));
    drop(writer);
    fs::write(&record, "0-5 \n").unwrap();
    collect(&store, &[]);
    assert_eq!(root.files("ingest"), [""; 0]);
}

#[test]
fn the_second_writer_waits_and_finds_the_blob_or_goes_on() {
    let (_root, store) = Root::new();
    let lease = store.lease().unwrap();
    for commits in [true, false] {
        let bytes = [commits as u8; 10];
        let wanted = digest(&bytes);
        let mut first = write(&store, &lease, &wanted, Some(10));
        first.write_all(&bytes[..4]).unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let (store, wanted) = (&store, &wanted);
            scope.spawn(move || {
                let lease = store.lease().unwrap();
                sender.send(store.ingest(&lease, wanted, Some(10)).unwrap()).unwrap();
            });
            assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "it did not wait");
            match commits {
                true => first.write_all(&bytes[4..]).map(|()| first.commit().unwrap()).map(drop).unwrap(),
                false => drop(first),
            }
            match receiver.recv().unwrap() {
                Ingest::Present => assert!(commits),
                Ingest::Write(writer) => assert_eq!((commits, writer.offset()), (false, 4)),
            }
        });
    }
}

/// A file that went while one waited for its lock is not written on.
#[test]
fn who_waited_for_a_file_that_is_gone_begins_another() {
    let (root, store) = Root::new();
    let lease = store.lease().unwrap();
    let wanted = digest(b"hello");
    let first = write(&store, &lease, &wanted, Some(5));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut second = write(&store, &store.lease().unwrap(), &wanted, Some(5));
            second.write_all(b"hello").unwrap();
            second.commit().unwrap();
        });
        thread::sleep(Duration::from_millis(100));
        // Nothing came, so its file goes.
        drop(first);
    });
    store.verify(&wanted).unwrap();
    assert_eq!(root.files("ingest"), [""; 0]);
}

#[test]
fn content_without_a_digest_gets_one() {
    let (root, store) = Root::new();
    let lease = store.lease().unwrap();
    for _ in 0..2 {
        let mut writer = store.writer(&lease).unwrap();
        writer.write_all(b"hel").unwrap();
        writer.write_all(b"lo").unwrap();
        assert_eq!(writer.commit().unwrap(), digest(b"hello"));
    }
    store.writer(&lease).unwrap().write_all(b"lost").unwrap();
    let sha512 = Hasher::digest_of("sha512", b"hello");
    for (expected, right) in [(&digest(b"hello"), true), (&sha512, true), (&digest(b"jello"), false)] {
        let mut writer = store.writer(&lease).unwrap();
        writer.write_all(b"hello").unwrap();
        writer.expect(expected);
        writer.sync().unwrap();
        assert_eq!(writer.commit().is_ok_and(|found| found == *expected), right);
    }
    assert_eq!(store.put(&lease, b"put").unwrap(), digest(b"put"));
    assert_eq!((root.files("tmp"), root.files("blobs/sha256").len()), (vec![], 2));
    // Another process's half of the same document is not believed.
    let half = root.0.join("ingest").join(digest(b"whole").as_str().replace(':', "-"));
    fs::write(half, "xx").unwrap();
    store.put(&lease, b"whole").unwrap();
    store.verify(&digest(b"whole")).unwrap();
}

#[test]
fn only_what_nobody_holds_is_collected() {
    let (root, store) = Root::new();
    let lease = store.lease().unwrap();
    let [kept, held, lost] = [b"kept", b"held", b"lost"].map(|bytes| store.put(&lease, bytes).unwrap());
    drop(lease);
    let lease = store.lease().unwrap();
    lease.add(&held).unwrap();
    let mut partial = write(&store, &lease, &digest(b"live"), None);
    partial.write_all(b"li").unwrap();
    fs::write(root.0.join("ingest/sha256-dead"), "dead").unwrap();
    fs::write(root.0.join("leases/dead"), format!("{lost}\n")).unwrap();
    let lock = store.exclusive().unwrap();
    let kept_set = HashSet::from([kept.clone()]);
    let hour = Duration::from_secs(3600);
    assert_eq!(store.collect(&lock, &kept_set, hour).unwrap(), Collected { blobs: 1, partial: 0, bytes: 4 });
    drop(lock);
    assert_eq!(collect(&store, &[&kept]).partial, 1);
    assert!(store.has(&kept) && store.has(&held) && !store.has(&lost));
    assert_eq!((root.files("ingest").len(), root.files("leases").len()), (1, 1));
    drop((partial, lease));
    assert_eq!(collect(&store, &[]).blobs, 2);
    assert_eq!((root.files("ingest"), root.files("leases"), root.files("blobs/sha256")), (vec![], vec![], vec![]));
}

#[test]
fn temporary_directories_go_with_their_maker() {
    let (root, store) = Root::new();
    let temp = store.temp().unwrap();
    fs::write(temp.path().join("file"), "x").unwrap();
    fs::create_dir_all(root.0.join("tmp/dead/deep")).unwrap();
    fs::write(root.0.join("tmp/dead-file"), "x").unwrap();
    let lease = store.lease().unwrap();
    assert_eq!(root.files("tmp").len(), 1);
    assert!(temp.path().join("file").exists());
    drop((temp, lease));
    assert_eq!(root.files("tmp"), [""; 0]);
}

#[test]
fn a_damaged_blob_is_found() {
    let (_root, store) = Root::new();
    let lease = store.lease().unwrap();
    let digest = store.put(&lease, b"hello").unwrap();
    File::options().write(true).open(store.path(&digest)).unwrap().write_all_at(b"J", 0).unwrap();
    assert!(matches!(store.verify(&digest), Err(Error::Corrupt { .. })));
    assert!(matches!(store.read(&digest, 10), Err(Error::Corrupt { .. })));
    store.remove(&store.exclusive().unwrap(), &digest).unwrap();
    assert!(matches!(store.verify(&digest), Err(Error::Missing(_))));
    assert!(matches!(store.open_blob(&digest), Err(Error::Missing(_))));
    store.sync().unwrap();
}
