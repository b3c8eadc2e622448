//! Compressing layers, always to the same bytes: gzip's header without a time or a name, and a level and block size that do not depend on
//! the machine. gzip is one member, deflated by blocks on as many threads as there are processors.

use flate2::{Compress, Crc, FlushCompress, Status};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip, at a level of 1 to 9. What every registry and engine takes.
    Gzip(u32),
    /// zstd, at a level of 1 to 19 (Docker since 23, podman, containerd).
    Zstd(i32),
}

impl Default for Packing {
    /// gzip at its usual level.
    fn default() -> Packing {
        Packing::Gzip(6)
    }
}

/// A compressing writer.
pub(crate) enum Compressor<W: Write> {
    Plain(W),
    Gzip(Gzip<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub fn new(out: W, packing: Packing) -> io::Result<Compressor<W>> {
        Ok(match packing {
            Packing::Plain => Compressor::Plain(out),
            Packing::Gzip(level) => Compressor::Gzip(Gzip::new(out, level.clamp(1, 9))?),
            Packing::Zstd(level) => Compressor::Zstd(zstd::Encoder::new(out, level.clamp(1, 19))?),
        })
    }

    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::Plain(out) => Ok(out),
            Compressor::Gzip(gzip) => gzip.finish(),
            Compressor::Zstd(zstd) => zstd.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::Plain(out) => out.write(bytes),
            Compressor::Gzip(gzip) => gzip.write(bytes),
            Compressor::Zstd(zstd) => zstd.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are deflated on their own. Larger blocks gain less than 1 %.
const BLOCK: usize = 1 << 20;

type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// gzip by several threads. Each block ends at a whole byte (a "sync flush"), so that the blocks stand one after the other in one stream.
pub(crate) struct Gzip<W: Write> {
    out: W,
    crc: Crc,
    block: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    most: usize,
}

impl<W: Write> Gzip<W> {
    fn new(mut out: W, level: u32) -> io::Result<Gzip<W>> {
        // RFC 1952: deflate, no flags, no time, no extra flags, unknown operating system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
                    // The writer is gone, finished or not.
                    let Ok((block, answer)) = job else { return };
                    let _ = answer.send(deflate(&block, level, FlushCompress::Sync));
                }
            });
        }
        let (crc, block) = (Crc::new(), Vec::with_capacity(BLOCK));
        Ok(Gzip { out, crc, block, jobs: Some(jobs), waiting: VecDeque::new(), most: 2 * threads })
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (answer, result) = sync_channel(1);
        let gone = || io::Error::other("the compressing threads ended");
        self.jobs.as_ref().ok_or_else(gone)?.send((block, answer)).map_err(|_| gone())?;
        self.waiting.push_back(result);
        if self.waiting.len() >= self.most { self.receive() } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<()> {
        let Some(result) = self.waiting.pop_front() else { return Ok(()) };
        let block = result.recv().map_err(|_| io::Error::other("a compressing thread ended"))??;
        self.out.write_all(&block)
    }

    fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.send()?;
        }
        while !self.waiting.is_empty() {
            self.receive()?;
        }
        // An empty last block.
        self.out.write_all(&deflate(&[], 1, FlushCompress::Finish)?)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        self.jobs = None;
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.crc.update(&bytes[..n]);
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate(block: &[u8], level: u32, flush: FlushCompress) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    // What can't be compressed grows by 5 bytes in 16 KiB.
    let mut out = Vec::with_capacity(block.len() + block.len() / 1000 + 128);
    loop {
        let done = compress.total_in() as usize;
        let status = compress.compress_vec(&block[done..], &mut out, flush).map_err(io::Error::other)?;
        let all = compress.total_in() as usize == block.len() && out.len() < out.capacity();
        match status {
            Status::StreamEnd => return Ok(out),
            _ if all && flush == FlushCompress::Sync => return Ok(out),
            _ => out.reserve(4096),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pack(data: &[u8], packing: Packing) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), packing).unwrap();
        compressor.write_all(data).unwrap();
        compressor.finish().unwrap()
    }

    /// Bytes that neither repeat nor compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn gzip_of_many_blocks_is_one_member() {
        for data in [vec![], b"short".to_vec(), vec![0; 2 * BLOCK + 1], noise(BLOCK + 77)] {
            let packed = pack(&data, Packing::Gzip(6));
            assert_eq!(packed, pack(&data, Packing::Gzip(6)), "the same bytes each time");
            let mut read = Vec::new();
            let mut decoder = flate2::bufread::GzDecoder::new(packed.as_slice());
            decoder.read_to_end(&mut read).unwrap();
            assert_eq!(read.len(), data.len());
            assert!(read == data);
            assert!(decoder.into_inner().is_empty(), "nothing after the member");
        }
    }

    #[test]
    fn zstd_and_plain() {
        let data = noise(100_000);
        assert_eq!(pack(&data, Packing::Plain), data);
        let packed = pack(&[data.clone(), data.clone()].concat(), Packing::Zstd(3));
        assert!(packed.len() < 110_000);
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), [data.clone(), data].concat());
    }
}
