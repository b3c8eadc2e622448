//! A blob into the store: with retries, from where a cut download ended, in several ranges at once when it is big.

use crate::client::{Client, Endpoint};
use crate::error::{Error, Result};
use crate::pull::Blob;
use crate::url::shown;
use rrt_content::Writer;
use rrt_oci::image::{Descriptor, Reference};
use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One read of the network and write of the file, bytes.
const BUFFER: usize = 128 << 10;
/// Ranges of a big blob: not so small that requests count, not so large that the front waits long for one of them (bytes).
const RANGE: Range<u64> = (8 << 20)..(32 << 20);

/// Hears how a fetch goes on, from any of its threads.
pub trait FetchWatch: Sync {
    /// The first `front` bytes of the blob are in the writer's file, and `all` bytes in sum.
    fn arrived(&self, front: u64, all: u64);
    /// The next attempt is after a pause.
    fn retrying(&self, pause: Duration, error: &Error);
    /// Shall it end?
    fn cancelled(&self) -> bool {
        false
    }
}

impl FetchWatch for crate::Unwatched {
    fn arrived(&self, _: u64, _: u64) {}
    fn retrying(&self, _: Duration, _: &Error) {}
}

/// Where a blob came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// `host:port` of the registry or mirror.
    pub from: String,
    /// It was a mirror: what it has may be wrong, and the registry's own right ([`Client::distrust`]).
    pub mirror: bool,
}

/// One blob and where it comes from.
struct Job<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    reference: &'a Reference,
    descriptor: &'a Descriptor,
    watch: &'a dyn FetchWatch,
}

impl Client {
    /// Fetches what the writer does not have yet; [`Writer::commit`] verifies it. Mirrors are asked first; one that fails, at
    /// whatever byte, is followed by the next place, which goes on there.
    pub fn fetch(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        writer: &mut Writer,
        watch: &dyn FetchWatch,
    ) -> Result<Fetched> {
        let from = |endpoint: &Endpoint| Fetched { from: endpoint.url.authority.clone(), mirror: endpoint.mirror };
        for mirror in self.mirrors(reference.registry()) {
            let job = Job { client: self, endpoint: &mirror, reference, descriptor, watch };
            match job.fetch(writer) {
                Ok(()) => return Ok(from(&mirror)),
                Err(e @ (Error::Cancelled | Error::Content(_))) => return Err(e),
                Err(Error::Connect { .. }) => self.distrust(&mirror.url.authority),
                Err(_) => {}
            }
        }
        let endpoint = self.retry(&mut |_, _| Ok(()), || self.origin(reference.registry()))?;
        Job { client: self, endpoint: &endpoint, reference, descriptor, watch }.fetch(writer)?;
        Ok(from(&endpoint))
    }
}

impl Job<'_> {
    /// As many attempts as are allowed, counted anew whenever more has come than ever before.
    fn fetch(&self, writer: &mut Writer) -> Result<()> {
        let size = self.descriptor.size;
        let (mut best, mut done) = (all_of(writer, size), 0);
        loop {
            let error = match self.attempt(writer) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let all = all_of(writer, size);
            (best, done) = if all > best { (all, 1) } else { (best, done + 1) };
            let Some(pause) = self.client.pause(&error, done) else { return Err(error) };
            self.wait(pause, &error)?;
        }
    }

    /// Waits in short steps, so that nobody who wants to end waits for the whole pause.
    fn wait(&self, pause: Duration, error: &Error) -> Result<()> {
        self.watch.retrying(pause, error);
        let step = Duration::from_millis(100);
        let mut left = pause;
        while !left.is_zero() {
            self.check()?;
            std::thread::sleep(left.min(step));
            left = left.saturating_sub(step);
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.watch.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn blob(&self, range: &Range<u64>) -> Result<Blob> {
        let end = (range.end < self.descriptor.size).then_some(range.end);
        self.client.blob_from(self.endpoint, self.reference, self.descriptor, range.start, end)
    }

    fn attempt(&self, writer: &mut Writer) -> Result<()> {
        let size = self.descriptor.size;
        let config = self.client.config();
        let missing = writer.missing(size);
        let left: u64 = missing.iter().map(|range| range.end - range.start).sum();
        let tail = matches!(&missing[..], [only] if only.end == size);
        if missing.is_empty() {
            return Ok(());
        }
        if tail && (left < config.split || config.ranges < 2) {
            let blob = self.blob(&missing[0])?;
            return self.in_order(blob, writer);
        }
        let queue: VecDeque<Range<u64>> =
            missing.into_iter().flat_map(|range| split(range, size, config.ranges)).collect();
        let Some(first) = queue.front() else { return Ok(()) };
        let blob = self.blob(first)?;
        // A registry without ranges sends all of it: that is as good as any other way.
        match blob.ranged() {
            true => self.in_ranges(blob, queue, writer),
            false => self.in_order(blob, writer),
        }
    }

    /// From where the blob begins to its end; hashed on the way.
    fn in_order(&self, mut blob: Blob, writer: &mut Writer) -> Result<()> {
        let size = self.descriptor.size;
        if blob.offset() != writer.offset() || writer.missing(size).len() > 1 {
            writer.truncate()?;
        }
        if blob.offset() != writer.offset() {
            return Err(self.short(blob.offset()));
        }
        let mut buffer = vec![0; BUFFER];
        while writer.offset() < size {
            self.check()?;
            match blob.read(&mut buffer) {
                Ok(0) => return Err(self.short(writer.offset())),
                Ok(length) => writer.append(&buffer[..length])?,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(crate::pull::cut(self.endpoint, self.descriptor, &e)),
            }
            self.watch.arrived(writer.offset(), writer.offset());
        }
        Ok(())
    }

    /// Several threads, each taking the next range; so the front of the blob grows steadily.
    fn in_ranges(&self, first: Blob, mut queue: VecDeque<Range<u64>>, writer: &Writer) -> Result<()> {
        let Some(range) = queue.pop_front() else { return Ok(()) };
        let threads = self.client.config().ranges.min(queue.len() + 1);
        let (queue, failed, stop) = (Mutex::new(queue), Mutex::new(None), AtomicBool::new(false));
        let work = |begun: Option<(Blob, Range<u64>)>| {
            let mut begun = begun;
            while !stop.load(Ordering::Relaxed) {
                let next =
                    || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front().map(|range| (None, range));
                let taken = begun.take().map(|(blob, range)| (Some(blob), range)).or_else(next);
                let Some((blob, range)) = taken else { return };
                if let Err(error) = self.one_range(blob, range, writer, &stop) {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work(None));
            }
            work(Some((first, range)));
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn one_range(&self, blob: Option<Blob>, range: Range<u64>, writer: &Writer, stop: &AtomicBool) -> Result<()> {
        let mut blob = match blob {
            Some(blob) => blob,
            None => self.blob(&range)?,
        };
        if !blob.ranged() {
            let why = "the registry honours one range and not the next".to_owned();
            return Err(Error::Answer { url: shown(&self.endpoint.url), why });
        }
        let mut buffer = vec![0; BUFFER];
        let mut at = range.start;
        while at < range.end && !stop.load(Ordering::Relaxed) {
            self.check()?;
            let most = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
            match blob.read(&mut buffer[..most]) {
                Ok(0) => return Err(self.short(at)),
                Ok(length) => {
                    writer.write_at(&buffer[..length], at)?;
                    at += length as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(crate::pull::cut(self.endpoint, self.descriptor, &e)),
            }
            self.watch.arrived(writer.offset(), all_of(writer, self.descriptor.size));
        }
        Ok(())
    }

    /// The body ended before the blob.
    fn short(&self, at: u64) -> Error {
        let why = format!("the connection ended after {at} of {} bytes", self.descriptor.size);
        crate::pull::cut(self.endpoint, self.descriptor, &std::io::Error::other(why))
    }
}

/// So many of the blob's bytes are there.
fn all_of(writer: &Writer, size: u64) -> u64 {
    let missing: u64 = writer.missing(size).iter().map(|range| range.end - range.start).sum();
    size - missing.min(size)
}

/// Pieces of a range that several threads take in order.
fn split(range: Range<u64>, size: u64, threads: usize) -> impl Iterator<Item = Range<u64>> {
    let length = (size / (threads as u64 * 4).max(1)).clamp(RANGE.start, RANGE.end);
    let pieces = (range.end - range.start).div_ceil(length);
    (0..pieces).map(move |at| {
        let start = range.start + at * length;
        start..(start + length).min(range.end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_in_order() {
        for (range, size) in [(0..1, 1), (5..(100 << 20), 200 << 20), (0..(64 << 20), 64 << 20), (3..3, 9)] {
            let mut at = range.start;
            for piece in split(range.clone(), size, 3) {
                assert_eq!(piece.start, at);
                assert!(piece.end > piece.start && piece.end - piece.start <= RANGE.end);
                at = piece.end;
            }
            assert_eq!(at, range.end);
        }
    }
}
