//! What the tests look at and set up on the host: mounts, cgroups, terminals, sockets.

use std::fs;
use std::io::{IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::DEADLINE;

/// The lines of this thread's mountinfo.
#[must_use]
pub fn host_mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc/thread-self/mountinfo");
    text.lines().map(str::to_owned).collect()
}

/// Gives this thread, and the commands it starts, a mount namespace of its own, so that the mounts a test makes vanish
/// with its thread.
///
/// # Panics
/// Without the privilege to do so.
pub fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS); these tests need root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make / private");
}

pub(crate) struct CgroupMount {
    pub(crate) path: PathBuf,
    /// Empty for cgroup v2.
    controllers: Vec<String>,
}

pub(crate) fn cgroup_mounts() -> Vec<CgroupMount> {
    let mounts = host_mounts();
    let parsed = mounts.iter().filter_map(|line| {
        let (left, right) = line.split_once(" - cgroup")?;
        let path = PathBuf::from(left.split(' ').nth(4)?);
        let (kind, options) = (right.split(' ').next()?, right.split(' ').nth(2)?);
        let controllers = if kind == "2" { Vec::new() } else { options.split(',').map(str::to_owned).collect() };
        Some(CgroupMount { path, controllers })
    });
    parsed.collect()
}

/// Whether the machine has cgroup v2 only. Tests of limits read other files then.
#[must_use]
pub fn cgroup_v2() -> bool {
    cgroup_mounts().iter().all(|m| m.controllers.is_empty())
}

/// The path of process `pid` in the hierarchy of a v1 controller (`""`: cgroup v2), as /proc/PID/cgroup has it.
#[must_use]
pub fn process_cgroup(pid: u32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let controllers = parts.nth(1)?;
        controllers.split(',').any(|c| c == controller).then(|| parts.next().map(str::to_owned))?
    })
}

/// Whether a controller is in the unified hierarchy, on a machine with v1, too; nothing where it is in none.
#[must_use]
pub fn controller_is_v2(controller: &str) -> Option<bool> {
    if cgroup_mounts().iter().any(|m| m.controllers.iter().any(|c| c == controller)) {
        return Some(false);
    }
    let unified = cgroup_mounts().into_iter().find(|m| m.controllers.is_empty())?;
    let all = fs::read_to_string(unified.path.join("cgroup.controllers")).ok()?;
    all.split_whitespace().any(|c| c == controller).then_some(true)
}

/// The directory of process `pid`'s cgroup in the hierarchy that has the controller.
#[must_use]
pub fn cgroup_dir(pid: u32, controller: &str) -> Option<PathBuf> {
    let controller = if controller_is_v2(controller) == Some(false) { controller } else { "" };
    let inside = process_cgroup(pid, controller)?;
    let is_it = |m: &CgroupMount| match controller {
        "" => m.controllers.is_empty(),
        _ => m.controllers.iter().any(|c| c == controller),
    };
    let found = cgroup_mounts().into_iter().find(is_it)?;
    Some(found.path.join(inside.trim_start_matches('/')))
}

/// A file of process `pid`'s cgroup without its final newline, or nothing if this kernel has no such file.
#[must_use]
pub fn cgroup_file(pid: u32, controller: &str, file: &str) -> Option<String> {
    let text = fs::read_to_string(cgroup_dir(pid, controller)?.join(file)).ok()?;
    Some(text.trim_end().to_owned())
}

/// A pseudo terminal of the test's own.
pub struct Pty {
    /// The side of the terminal emulator.
    pub master: fs::File,
    slave: PathBuf,
}

impl Pty {
    /// A new pseudo terminal of the size given.
    ///
    /// # Panics
    /// When the host has none to give.
    #[must_use]
    pub fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let pty = Self { master: master.into(), slave: name.to_string_lossy().into_owned().into() };
        pty.resize(rows, columns);
        pty
    }

    /// Sets the size of the terminal.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("tcsetwinsize");
    }

    /// The side of the program.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn slave(&self) -> fs::File {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = fs::File::options();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(&self.slave).expect("slave of the terminal")
    }

    /// Reads until `text` has come, and returns all that has.
    ///
    /// # Panics
    /// When the terminal ends before.
    #[must_use]
    pub fn read_until(&mut self, text: &str) -> String {
        read_until(&mut self.master, text)
    }
}

/// Reads from a terminal's master until `text` has come, and returns all that has.
///
/// # Panics
/// When the terminal ends before.
pub fn read_until(master: &mut fs::File, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        await_readable(&*master, &format!("{text:?} on a terminal; until now: {seen:?}"));
        // EIO is how a master says that no slave is open any more.
        let n = master.read(&mut buffer).unwrap_or_else(|e| panic!("{e} before {text:?} came; until then: {seen:?}"));
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    seen
}

fn await_readable(fd: impl AsFd, what: &str) {
    let limit = DEADLINE.try_into().expect("a deadline fits a timespec");
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).expect("poll");
    assert_ne!(ready, 0, "waited {DEADLINE:?} for {what}");
}

/// Listens on `path` for one message of the console-socket or pidfd-socket protocol; the thread returns its text and
/// the descriptors it carried.
///
/// # Panics
/// When the socket cannot be made.
pub fn console_socket(path: &Path) -> JoinHandle<(String, Vec<OwnedFd>)> {
    let listener = UnixListener::bind(path).expect("console socket");
    std::thread::spawn(move || {
        await_readable(&listener, "a connection to the socket");
        let (peer, _) = listener.accept().expect("accept on the console socket");
        await_readable(&peer, "a message on the socket");
        receive(&peer)
    })
}

/// One message from a socket, and the fds that came with it.
///
/// # Panics
/// When nothing can be received.
pub fn receive(from: &impl AsRawFd) -> (String, Vec<OwnedFd>) {
    let mut text = [0u8; 4096];
    // Room for more than the one that may come, so that more would be seen.
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags).expect("recvmsg");
    let mut fds = Vec::new();
    for control in message.cmsgs().expect("whole control messages") {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: recvmsg(2) has just made these descriptors, and nothing else knows them (unix(7)).
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    (String::from_utf8_lossy(&text[..length]).into_owned(), fds)
}
