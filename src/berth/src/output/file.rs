//! `-o FILE`: a file that is there only when all of it is, or standard output.

use crate::exit::Exit;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where an archive goes.
pub struct Output {
    place: Place,
    /// What was told of it does not say that it was this end that failed.
    failure: Option<io::Error>,
}

enum Place {
    /// Into a pipe, without the buffer of lines that Rust puts before it.
    Standard(File),
    /// Beside the file, whose name it takes at the end; what is no regular file is written to as it is.
    File { out: BufWriter<File>, path: PathBuf, new: Option<PathBuf> },
}

impl Output {
    /// Opens it. A terminal is no place for an archive.
    pub fn create(path: Option<&str>) -> Result<Output, Exit> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return match io::stdout().is_terminal() {
                true => Err(Exit::failed("cowardly refusing to save to a terminal. Use the -o flag or redirect")),
                false => match io::stdout().as_fd().try_clone_to_owned() {
                    Ok(out) => Ok(Output { place: Place::Standard(out.into()), failure: None }),
                    Err(e) => Err(Exit::write("standard output", &e)),
                },
            };
        };
        let path = PathBuf::from(path);
        let failed = |e: io::Error| Exit::failed(format!("Error: can't write {}: {e}", path.display()));
        let mut options = OpenOptions::new();
        options.write(true);
        let (file, new) = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => (options.open(&path).map_err(failed)?, None),
            _ => {
                let new = beside(&path);
                // As Docker's: nobody else's affair.
                (options.create_new(true).mode(0o600).open(&new).map_err(failed)?, Some(new))
            }
        };
        Ok(Output { place: Place::File { out: BufWriter::with_capacity(1 << 17, file), path, new }, failure: None })
    }

    /// What was written is all of it.
    pub fn finish(mut self) -> Result<(), Exit> {
        if let Err(e) = self.flush() {
            return Err(self.why(Exit::error(&e)));
        }
        if let Place::File { path, new, .. } = &mut self.place
            && let Some(new) = new.take()
        {
            fs::rename(&new, &*path).map_err(|e| {
                let _ = fs::remove_file(&new);
                Exit::failed(format!("Error: can't write {}: {e}", path.display()))
            })?;
        }
        Ok(())
    }

    /// Why a command that wrote here failed with `exit`: because of this end, if this end has failed.
    pub fn why(&self, exit: Exit) -> Exit {
        match (&self.failure, &self.place) {
            (None, _) => exit,
            (Some(e), Place::Standard(_)) => Exit::write("standard output", e),
            (Some(e), Place::File { path, .. }) => Exit::write(&path.display().to_string(), e),
        }
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &result
            && e.kind() != io::ErrorKind::Interrupted
        {
            self.failure = Some(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error));
        }
        result
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.place {
            Place::Standard(out) => out.write(bytes),
            Place::File { out, .. } => out.write(bytes),
        };
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = match &mut self.place {
            Place::Standard(out) => out.flush(),
            Place::File { out, .. } => out.flush(),
        };
        self.noted(flushed)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Place::File { new: Some(new), .. } = &self.place {
            let _ = fs::remove_file(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_only_when_it_is_whole() {
        let dir = std::env::temp_dir().join(format!("berth-output-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("x");
        let name = path.to_str();
        let mut cut = Output::create(name).unwrap();
        cut.write_all(b"half").unwrap();
        drop(cut);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::write(&path, "old").unwrap();
        let mut whole = Output::create(name).unwrap();
        whole.write_all(b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(Output::create(dir.to_str()).is_err_and(|e| e.message.contains("directory")));
        fs::remove_dir_all(&dir).unwrap();
    }
}
