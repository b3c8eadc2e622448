//! How the program starts, in place of what std does before `main`.
//!
//! A runtime that seals itself (`seal`) starts twice for one container. std's own start puts a handler on a signal stack for a stack
//! that overflows and names the thread, a dozen calls and as many pages each time (measured: PERFORMANCE.md). What of it a program
//! needs for its safety is here.

use crate::error::{Named, Result, SysError, check};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// Makes `$run`, a `fn(Args) -> u8` whose result is the exit code, what the program does: what C calls `main`. The crate is `no_main`, but for
/// its tests, which have a `main` of their own.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        const _: fn($crate::start::Args) -> u8 = $run;

        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(count: std::ffi::c_int, argv: *const *const std::ffi::c_char) -> std::ffi::c_int {
            // SAFETY: the C library passes what execve(2) has put on the stack, which stays there. C11 5.1.2.2.1
            let args = unsafe { $crate::start::Args::new(count, argv) };
            $crate::start::run(args, $run)
        }
    };
}

/// The arguments of the program, `argv[0]` first.
#[derive(Clone, Copy)]
pub struct Args(&'static [*const c_char]);

impl Args {
    /// Of what `main` was given.
    ///
    /// # Safety
    /// `argv` are `count` pointers to NUL-terminated strings; they and the pointers stay as long as the process.
    pub unsafe fn new(count: c_int, argv: *const *const c_char) -> Args {
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: by the contract above. std::slice::from_raw_parts
        Args(unsafe { std::slice::from_raw_parts(argv, count) })
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'static OsStr> {
        // SAFETY: by the contract of `new`. CStr::from_ptr
        self.0.iter().map(|arg| OsStr::from_bytes(unsafe { CStr::from_ptr(*arg) }.to_bytes()))
    }

    /// Where the kernel has put the arguments, and where the environment. execve(2) lays each out without a gap.
    pub(crate) fn areas(self) -> (Range<u64>, Range<u64>) {
        let area = |strings: &mut dyn Iterator<Item = *const c_char>| {
            let start = strings.next()?;
            let last = strings.last().unwrap_or(start);
            // SAFETY: by the contract of `new`, and environ(7). CStr::from_ptr
            let end = last as u64 + unsafe { CStr::from_ptr(last) }.to_bytes_with_nul().len() as u64;
            Some(start as u64..end)
        };
        let arguments = area(&mut self.0.iter().copied()).unwrap_or_default();
        let environment = area(&mut environment()).unwrap_or(arguments.end..arguments.end);
        (arguments, environment)
    }

    /// Executes the file that an fd holds with these arguments, and with the environment and `variable` (`NAME=value`); returns only on
    /// failure. execveat(2)
    pub fn execute(self, fd: BorrowedFd<'_>, variable: &CStr) -> SysError {
        let argv: Vec<_> = self.0.iter().copied().chain([std::ptr::null()]).collect();
        let envp: Vec<_> = [variable.as_ptr()].into_iter().chain(environment()).chain([std::ptr::null()]).collect();
        // SAFETY: the path is empty; both arrays end in NULL, their strings are `variable` and those of the process. execveat(2)
        unsafe {
            let (argv, envp) = (argv.as_ptr(), envp.as_ptr());
            libc::syscall(libc::SYS_execveat, fd.as_raw_fd(), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
        }
        SysError::new(format!("execveat({}, AT_EMPTY_PATH)", fd.as_raw_fd()), Errno::last_raw())
    }
}

/// The pointers of environ(7).
fn environment() -> impl Iterator<Item = *const c_char> {
    unsafe extern "C" {
        safe static environ: *const *const c_char;
    }
    // SAFETY: the array ends in NULL, which is the last that is read; nobody changes it, since nothing here calls setenv. environ(7)
    (0..).map(|i| unsafe { *environ.wrapping_add(i) }).take_while(|variable| !variable.is_null())
}

/// Runs the program; what `main` returns is its exit code.
pub fn run(args: Args, program: fn(Args) -> u8) -> c_int {
    if let Err(error) = fill_standard_streams().and_then(|()| ignore_broken_pipes()) {
        eprintln!("{error}");
        return 1;
    }
    let code = program(args);
    // std's `print!` holds back what does not end a line.
    let _ = std::io::stdout().flush();
    c_int::from(code)
}

/// A closed one of the three standard streams becomes /dev/null: else the first file we open would be taken for it, by us or by the
/// container's program. poll(2), POLLNVAL
fn fill_standard_streams() -> Result<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: an array of as many entries as are said. poll(2)
    let ret = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    check(ret.into(), || "poll(0, 1, 2)".into())?;
    for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // The lowest free number is the closed stream's. It stays open for good.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).named(|| "open(\"/dev/null\")".into())?;
        std::mem::forget(null);
    }
    Ok(())
}

/// A reader that has gone away is an error of write(2), not our end. sigaction(2)
fn ignore_broken_pipes() -> Result<()> {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_IGN is no handler, so nothing of ours runs in signal context. sigaction(2)
    unsafe { sigaction(Signal::SIGPIPE, &ignore) }.named(|| "sigaction(SIGPIPE, SIG_IGN)".into()).map(drop)
}
