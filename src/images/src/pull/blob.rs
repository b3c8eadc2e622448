//! A blob on its way into the store, and who reads it at the same time.
//!
//! The network's bytes go to the ingest's file, and whoever unpacks reads them there, behind the front: the page cache is the pipe between
//! the two, so a slow unpacking never holds a download up, a cut download's earlier part is read like any other, and no byte is kept in
//! memory for it.

use crate::layer;
use crate::progress::{Phase, Progress};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Waiting threads look so often whether all is to end.
const LOOK: Duration = Duration::from_millis(100);

/// One blob of the pull.
pub(super) struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    /// So many bytes from the beginning are in the file.
    front: u64,
    /// All of it is there, and has its digest.
    whole: bool,
}

/// All is to end: an error is noted, or somebody asked for it.
pub(super) struct Stop<'a> {
    flag: AtomicBool,
    progress: &'a dyn Progress,
}

impl<'a> Stop<'a> {
    pub fn new(progress: &'a dyn Progress) -> Stop<'a> {
        Stop { flag: AtomicBool::new(false), progress }
    }

    pub fn set(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.progress.cancelled()
    }
}

impl Arrival {
    pub fn new() -> Arrival {
        Arrival { state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The download begins; its bytes come to this file.
    pub fn begins(&self, file: File, front: u64) {
        let mut state = self.state();
        (state.file, state.front) = (Some(file), front);
        self.changed.notify_all();
    }

    /// The first `front` bytes are in the file. Fewer than before when the download had to begin anew.
    pub fn arrived(&self, front: u64) {
        self.state().front = front;
        self.changed.notify_all();
    }

    /// All is there and verified.
    pub fn is_whole(&self, file: Option<File>, size: u64) {
        let mut state = self.state();
        state.file = file.or(state.file.take());
        (state.front, state.whole) = (size, true);
        self.changed.notify_all();
    }

    /// Waits for what `ready` finds; `None` when all is to end.
    fn wait<T>(&self, stop: &Stop<'_>, ready: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(found) = ready(&mut state) {
                return Some(found);
            }
            if stop.is_set() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
    }

    /// Waits until the blob is verified; false when all is to end.
    pub fn verified(&self, stop: &Stop<'_>) -> bool {
        self.wait(stop, |state| state.whole.then_some(())).is_some()
    }

    /// A reader of the blob from its beginning, once its file is there.
    pub fn follow<'a>(&'a self, stop: &'a Stop<'a>, id: &'a str, size: u64) -> Option<Follow<'a>> {
        let file = self.wait(stop, |state| state.file.as_ref().map(File::try_clone))?;
        Some(Follow { arrival: self, stop, file, at: 0, size, id })
    }
}

/// Reads a blob behind its front.
pub(super) struct Follow<'a> {
    arrival: &'a Arrival,
    stop: &'a Stop<'a>,
    file: io::Result<File>,
    at: u64,
    size: u64,
    id: &'a str,
}

impl Read for Follow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at == self.size || buffer.is_empty() {
                return Ok(0);
            }
            let at = self.at;
            let ready = |state: &mut State| (state.front > at).then_some((state.front, state.whole));
            let Some((front, whole)) = self.arrival.wait(self.stop, ready) else {
                return Err(io::Error::other(layer::Error::Cancelled));
            };
            let most = buffer.len().min(usize::try_from(front - at).unwrap_or(usize::MAX));
            let file = self.file.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
            let read = file.read_at(&mut buffer[..most], at)?;
            if read == 0 {
                // Just truncated: to begin anew, or because it has a wrong digest, which ends all.
                if self.stop.is_set() {
                    return Err(io::Error::other(layer::Error::Cancelled));
                }
                std::thread::sleep(LOOK);
                continue;
            }
            self.at += read as u64;
            // While it also comes, that is what the line says.
            if whole {
                self.stop.progress.layer(self.id, Phase::Extracting, self.at, Some(self.size));
            }
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::fs::OpenOptions;

    /// A file of this test that is open for both sides.
    fn pair(name: &str) -> (File, File) {
        let path = std::env::temp_dir().join(format!("rrt-follow-{name}-{}", std::process::id()));
        let writer = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (writer, reader)
    }

    #[test]
    fn a_reader_sees_what_has_arrived_and_waits_for_the_rest() {
        let (writer, reader) = pair("waits");
        let (arrival, stop) = (Arrival::new(), Stop::new(&Silent));
        std::thread::scope(|scope| {
            let read = scope.spawn(|| {
                let mut text = String::new();
                arrival.follow(&stop, "id", 10).unwrap().read_to_string(&mut text).unwrap();
                text
            });
            arrival.begins(reader, 0);
            for (at, part) in [(0, "abcd"), (4, "efgh")] {
                writer.write_all_at(part.as_bytes(), at).unwrap();
                arrival.arrived(at + 4);
                std::thread::sleep(Duration::from_millis(5));
            }
            // It begins anew: what was read is not read again.
            writer.set_len(0).unwrap();
            arrival.arrived(0);
            writer.write_all_at(b"ABCDEFGHIJ", 0).unwrap();
            arrival.is_whole(None, 10);
            let text = read.join().unwrap();
            assert!(text.eq_ignore_ascii_case("abcdefghij") && text.ends_with("IJ"), "{text}");
        });
    }

    #[test]
    fn a_file_that_is_truncated_for_its_wrong_digest_ends_its_reader() {
        let (writer, reader) = pair("truncated");
        let (arrival, stop) = (Arrival::new(), Stop::new(&Silent));
        writer.set_len(10).unwrap();
        arrival.begins(reader, 10);
        writer.set_len(0).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| arrival.follow(&stop, "id", 10).unwrap().read(&mut [0; 4]));
            std::thread::sleep(Duration::from_millis(20));
            stop.set();
            assert!(read.join().unwrap().is_err());
        });
    }

    #[test]
    fn nobody_waits_for_what_will_not_come() {
        let (_, reader) = pair("ends");
        let (arrival, stop) = (Arrival::new(), Stop::new(&Silent));
        arrival.begins(reader, 0);
        std::thread::scope(|scope| {
            let read = scope.spawn(|| arrival.follow(&stop, "id", 10).unwrap().read(&mut [0; 4]));
            let verified = scope.spawn(|| arrival.verified(&stop));
            stop.set();
            assert!(read.join().unwrap().is_err() && !verified.join().unwrap());
        });
    }
}
