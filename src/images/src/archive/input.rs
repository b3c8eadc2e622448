//! Archives as people have them: compressed in any way.

use crate::Error;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// The bytes of an archive, whatever it is compressed with: gzip and zstd here, xz and bzip2 by their programs, as Docker does it.
pub(crate) fn decompressed(input: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, Error> {
    let mut input = BufReader::with_capacity(1 << 17, input);
    let begin = input.fill_buf().map_err(|e| Error::io("read the archive", e))?;
    let is = |magic: &[u8]| begin.starts_with(magic);
    Ok(match begin {
        _ if is(b"\x1f\x8b\x08") => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        _ if is(b"\x28\xb5\x2f\xfd") => zstd(input)?,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => zstd(input)?,
        _ if is(b"\xfd7zXZ\0") => Box::new(Program::start("xz", input)?),
        _ if is(b"BZh") => Box::new(Program::start("bzip2", input)?),
        _ => Box::new(input),
    })
}

fn zstd(input: BufReader<impl Read + Send + 'static>) -> Result<Box<dyn Read + Send>, Error> {
    Ok(Box::new(zstd::Decoder::with_buffer(input).map_err(|e| Error::io("read the archive", e))?))
}

/// A program that decompresses, and the thread that gives it its input. (The thread ends with the input or with the program, whichever is
/// first; nobody waits for it, since an input that stands still would be waited for as well.)
struct Program {
    name: &'static str,
    child: Child,
    output: ChildStdout,
    said: Option<JoinHandle<String>>,
    failed: Receiver<io::Error>,
    done: bool,
}

impl Program {
    fn start(name: &'static str, mut input: impl Read + Send + 'static) -> Result<Program, Error> {
        let failed = |e: io::Error| Error::io(format!("decompress the archive with {name}"), e);
        let mut command = Command::new(name);
        command.args(["--decompress", "--stdout"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::archive(
                "the archive",
                format!("it is compressed with {name}, and there is no program {name}: install it"),
            ),
            _ => failed(e),
        })?;
        let missing = || failed(io::Error::other("no pipe"));
        let mut to = child.stdin.take().ok_or_else(missing)?;
        let (send, failed_input) = channel();
        std::thread::spawn(move || {
            match io::copy(&mut input, &mut to) {
                // The program has ended; it says why.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
                Err(e) => drop(send.send(e)),
                Ok(_) => {}
            }
        });
        let output = child.stdout.take().ok_or_else(missing)?;
        let mut errors = child.stderr.take().ok_or_else(missing)?.take(4096);
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text.trim().to_owned()
        });
        Ok(Program { name, child, output, said: Some(said), failed: failed_input, done: false })
    }
}

impl Read for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.output.read(buffer)?;
        if n == 0 && !self.done {
            self.done = true;
            if let Ok(error) = self.failed.try_recv() {
                return Err(error);
            }
            let status = self.child.wait()?;
            if !status.success() {
                let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: {said} ({status})", self.name)));
            }
        }
        Ok(n)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
