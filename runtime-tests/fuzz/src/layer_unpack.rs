//! An archive → files: whatever it says, nothing outside its directory changes, and nothing in it takes more than it has bytes for.

use crate::archive::Archive;
use rrt_images::layer::{Options, Target, Whiteouts, apply};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What names are made of.
const COMPONENTS: [&str; 18] = [
    "a",
    "b",
    "c",
    "a",
    "b",
    "c",
    ".",
    "..",
    "",
    "outside",
    "file",
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    ".wh..wh.x",
    ".wh...",
    ".wh..",
    "layer",
];

/// A directory with a layer's in it and, beside that, what no layer may touch. It is used for many layers.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    before: Vec<String>,
}

impl Place {
    /// In memory where that is possible.
    pub fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("berth-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("outside/a")).expect("a directory");
        fs::write(path.join("outside/file"), "outside").expect("a file");
        fs::write(path.join("outside/a/b"), "outside").expect("a file");
        let before = outside(&path);
        Place { path, before }
    }

    /// The absolute name of what no layer may touch.
    pub fn outside(&self) -> &str {
        self.path.to_str().expect("a name in ASCII")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Unpacks the archive in the way that `how` says. Returns whether it was taken.
///
/// # Panics
/// When something outside has changed.
pub fn layer_unpack(archive: &[u8], how: usize, place: &Place) -> bool {
    let layer = place.path.join("layer");
    fs::create_dir(&layer).expect("the last layer is gone");
    let whiteouts = [Whiteouts::Overlay, Whiteouts::OverlayUser, Whiteouts::Apply, Whiteouts::Keep][how % 4];
    let options = Options { max_entries: 200, skip_devices: true, ..Options::default() };
    let directory = File::open(&layer).expect("it was made");
    let target = Target { directory: directory.as_fd(), whiteouts };
    let result = apply(archive, &target, &options);
    if let Ok((applied, rest)) = &result {
        assert!(applied.entries * 512 <= (archive.len() - rest.len()) as u64, "each entry has a header");
    }
    if let Err(error) = &result {
        let text = error.to_string();
        assert!(text.len() < 4096 && !text.chars().any(char::is_control), "{text:?}");
    }
    fs::remove_dir_all(&layer).expect("nothing in it that can't be removed");
    assert_eq!(outside(&place.path), place.before, "{whiteouts:?}, {result:?}");
    result.is_ok()
}

/// What is beside the layer, with its attributes.
fn outside(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("it is there");
            let data = if metadata.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            let (mode, links, times) =
                (metadata.mode(), metadata.nlink(), (metadata.mtime_nsec(), metadata.ctime_nsec()));
            found.push(format!("{path:?} {mode:o} {links} {times:?} {data:?}"));
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    found.sort();
    found
}

/// An archive of a few entries that get into each other's way.
pub fn make(mut below: impl FnMut(usize) -> usize, place: &Place) -> Vec<u8> {
    let mut archive = Archive::new();
    for _ in 0..1 + below(12) {
        let name = name(&mut below, place);
        let link = name_of_link(&mut below, place);
        archive = match below(24) {
            0 => archive.mode(0o7777),
            1 => archive.mode(0),
            2 => archive.owner(below(3) as u32, 4_000_000),
            3 => archive.xattr("user.a", b"x"),
            4 => archive.xattr("trusted.overlay.redirect", b"/outside"),
            5 => archive.pax("path", link.as_bytes()),
            6 => archive.pax("linkpath", link.as_bytes()),
            7 => archive.pax("size", format!("{}", below(3000)).as_bytes()),
            8 => archive.pax("GNU.sparse.map", format!("0,{},{},1", below(4), below(9)).as_bytes()),
            _ => archive,
        };
        archive = match below(10) {
            0..3 => archive.file(&name, &[b'x'; 600][..below(600)]),
            3 | 4 => archive.directory(&name),
            5 | 6 => archive.symlink(&name, &link),
            7 | 8 => archive.hard_link(&name, &link),
            _ => match below(4) {
                0 => archive.fifo(&name),
                1 => archive.device(&name, b'3' + below(2) as u8, below(3) as u32, below(3) as u32),
                2 => archive.entry(&name, below(256) as u8, &link, &[b'y'; 1300][..below(1300)]),
                _ => archive.directory("./"),
            },
        };
    }
    archive.end()
}

fn name(below: &mut impl FnMut(usize) -> usize, place: &Place) -> String {
    let mut components = Vec::new();
    for _ in 0..1 + below(4) {
        components.push(COMPONENTS[below(COMPONENTS.len())]);
    }
    match below(12) {
        0 => format!("/{}", components.join("/")),
        1 => format!("{}/{}", place.outside(), components.join("/")),
        2 => format!("{}/", components.join("/")),
        _ => components.join("/"),
    }
}

fn name_of_link(below: &mut impl FnMut(usize) -> usize, place: &Place) -> String {
    match below(6) {
        0 => format!("{}/outside", place.outside()),
        1 => format!("{}{}/outside/file", "../".repeat(12), place.outside()),
        2 => "../outside".to_owned(),
        3 => "/proc/self/cwd".to_owned(),
        _ => name(below, place),
    }
}

/// Makes the checksums right again, so that changed bytes come past them.
pub fn right_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
