//! `uidmap=` and `gidmap=`: owners as the container's user namespace has them, by idmapped mounts. mount_setattr(2), Linux 5.12
//!
//! The kernel takes the mapping from a user namespace, which somebody has to be in while it is made: that is this program once
//! more, as `userns`, for a moment.

use crate::error::{Code, Error};
use crate::log;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The action, on the command line, of whoever is in the user namespace.
pub const ACTION: &str = "userns";

/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_IDMAP`
const READ_ONLY: u64 = 1;
const IDMAP: u64 = 0x10_0000;

/// The two mappings, as lines of `uid_map` and `gid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    uids: String,
    gids: String,
}

impl Mapping {
    /// From what follows `uidmap=` and `gidmap=`: `CONTAINER:HOST:SIZE`, several with commas between them.
    ///
    /// # Errors
    /// InvalidArgument, for something else.
    pub fn parse(uids: &str, gids: &str) -> Result<Mapping, Error> {
        Ok(Mapping { uids: lines("uidmap", uids)?, gids: lines("gidmap", gids)? })
    }

    /// A user namespace with these mappings.
    ///
    /// # Errors
    /// It cannot be made, or the kernel does not take a mapping.
    pub fn namespace(&self) -> Result<OwnedFd, Error> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Error::system(format_args!("user namespace for an idmapped mount (uidmap=, gidmap=): {what}"), e)
        };
        // Also when the file has been replaced by a newer one.
        let mut command = Command::new("/proc/self/exe");
        command.args(["-namespace", "none", ACTION]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().map_err(|e| failed("start", &e))?;
        // It ends with its standard input, whichever way this goes, and is reaped as any other.
        let (_input, output) = (child.stdin.take(), child.stdout.take());
        let mut word = String::new();
        let read = output.map(|mut output| output.read_to_string(&mut word));
        match read {
            Some(Ok(_)) if word.is_empty() => {}
            Some(Ok(_)) => return Err(failed("unshare", &word)),
            _ => return Err(failed("unshare", &"no answer")),
        }
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        for (file, lines) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            std::fs::write(proc.join(file), lines).map_err(|e| failed(&format!("write {file} {lines:?}"), &e))?;
        }
        open(proc.join("ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed("open", &e))
    }
}

fn lines(name: &str, text: &str) -> Result<String, Error> {
    let mut lines = String::new();
    for one in text.split(',') {
        let numbers: Vec<u32> = one.split(':').map_while(|number| number.parse().ok()).collect();
        let (&[inside, outside, size], 2) = (&numbers[..], one.matches(':').count()) else {
            let message = format!(
                "rootfs mount option {name}={text}: it is CONTAINER-ID:HOST-ID:SIZE, with commas between several"
            );
            return Err(Error::new(Code::InvalidArgument, message));
        };
        lines.push_str(&format!("{inside} {outside} {size}\n"));
    }
    Ok(lines)
}

/// The action: goes into a new user namespace, closes standard output (a word on it is an error), and stays until its input ends.
pub fn hold_namespace() {
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Err(e) => drop(write!(std::io::stdout(), "{e}")),
        Ok(()) => {
            let null = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let _ = null.and_then(|null| rustix::stdio::dup2_stdout(&null));
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
    }
}

/// What is mounted at `target`, mounted over itself once more with other owners.
///
/// # Errors
/// A file system that cannot do it: EINVAL.
pub fn remap(target: &Path, namespace: &OwnedFd) -> Result<(), Errno> {
    attach(target, target, namespace, 0)
}

fn attach(source: &Path, target: &Path, namespace: &OwnedFd, set: u64) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags)?;
    set_attributes(&tree, set | IDMAP, namespace)?;
    move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// `struct mount_attr`
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

/// Of a tree that is mounted nowhere yet, and of all in it; it becomes private.
#[expect(unsafe_code, reason = "no library has mount_setattr(2)")]
fn set_attributes(tree: &OwnedFd, set: u64, namespace: &OwnedFd) -> Result<(), Errno> {
    let propagation = libc::MS_PRIVATE;
    let attributes = Attributes { set, clear: 0, propagation, namespace: namespace.as_raw_fd().unsigned_abs().into() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a literal with its NUL, the struct is the kernel's first version and outlives the call, its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(nix::Error::last_raw())) }
}

/// The layers of an overlay with other owners: the directory that has them all, idmapped and read-only, at a place of ours while the
/// overlay is being mounted. The overlay keeps what it has found there.
pub struct Layers {
    place: PathBuf,
}

impl Layers {
    /// Attaches `common` at `place`, which is made.
    ///
    /// # Errors
    /// The system's.
    pub fn attach(common: &Path, place: &Path, namespace: &OwnedFd) -> Result<Layers, Errno> {
        match rustix::fs::mkdir(place, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        // From here on it is taken down again.
        let layers = Layers { place: place.to_owned() };
        attach(common, place, namespace, READ_ONLY)?;
        Ok(layers)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // Detached: nobody but the overlay has anything of it, and a descriptor of a program that is just being started goes soon.
        match unmount(&self.place, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => log::warn(format_args!("unmount {}: {e}", self.place.display())),
        }
        let _ = std::fs::remove_dir(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        let mapping = Mapping::parse("0:100000:65536,65536:0:1", "0:1:2").expect("two mappings");
        assert_eq!(mapping, Mapping { uids: "0 100000 65536\n65536 0 1\n".into(), gids: "0 1 2\n".into() });
        for bad in ["", "0", "0:1", "0:1:2:3", "0:1:x", "0:-1:2", "0:1:2,", "0:1:4294967296", "x:0:1:2"] {
            let error = Mapping::parse("0:0:1", bad).expect_err(bad);
            assert!(error.code == Code::InvalidArgument && error.message.contains("gidmap="), "{bad}: {error}");
        }
    }
}
