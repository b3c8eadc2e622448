//! The exec seal: no process of a container can get hold of this program's file for writing (CVE-2019-5736).
//!
//! A process that enters a container has `/proc/PID/exe` pointing at this program, and an image can have us execute
//! `/proc/self/exe` as its own program. Whoever then opens that link, and waits until we have ended, could overwrite the
//! host's file. So before anything of a container is touched, the program moves to a place where writing is impossible: a read-only
//! mount of the file alone, attached nowhere, which costs no copy; or, where that cannot be made, a sealed memory file. It moves while it
//! runs, or where the kernel does not let it, executes itself again from there. It is left out when the file is proof by itself (fs-verity), and when a user runs the host's (rootless).

use crate::error::{Doing, Error, Result};
use rrt_sys::start::Args;
use rrt_sys::{OFlags, image, path, seal};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Set for the second execution. It only ends the loop: that we are sealed is checked, not believed.
const MARK: &CStr = c"_RRT_SEALED=1";

/// Witness that this process runs from a sealed place.
#[derive(Debug, Default)]
pub struct Seal {
    /// The mount, as long as it is still in a namespace: one of its own, where whoever reaches it could make it writable again.
    mount: Option<OwnedFd>,
}

impl Seal {
    /// Takes the mount out of its namespace, for which the kernel waits 0.1 ms or more (RCU). To be done where there is nothing else to do, and
    /// before anybody but the host can look at a process of ours.
    pub fn close(&mut self) {
        self.mount = None;
    }
}

/// Makes sure that this process runs from a sealed place, or executes itself again from one with the same arguments.
///
/// # Errors
/// When no seal can be made: then no container is entered.
pub fn ensure(args: Args) -> Result<Seal> {
    let doing = || "protect the runtime's own file (CVE-2019-5736)".to_string();
    let own = Path::new("/proc/self/exe");
    if std::env::var_os("_RRT_SEALED").is_some() {
        return match seal::runs_sealed().doing(doing)? {
            true => Ok(Seal::default()),
            false => Err(Error::Usage("_RRT_SEALED is set but the runtime is not sealed; unset it".into())),
        };
    }
    let is_immutable = |file: &OwnedFd| seal::is_immutable(file.as_fd()).doing(doing);
    let sealed = match seal::detached(own) {
        Ok(mount) if is_immutable(&mount)? => return Ok(Seal::default()),
        Ok(mount) => mount,
        // Without the right to make mounts.
        Err(_)
            if is_immutable(&path::open(own, OFlags::PATH).doing(doing)?)? || is_out_of_reach(own).doing(doing)? =>
        {
            return Ok(Seal::default());
        }
        Err(_) => seal::memory_file(own).doing(doing)?,
    };
    match image::move_onto(sealed.as_fd(), args) {
        Ok(()) if seal::runs_sealed().doing(doing)? => Ok(Seal { mount: Some(sealed) }),
        _ => Err(Error::System { doing: doing(), source: args.execute(sealed.as_fd(), MARK) }),
    }
}

/// Whether no container that this process can make has a right on the file: a user without capabilities, in the host's user
/// namespace, can map only his own ids and those lent to him, and the file is root's, for root alone to write.
fn is_out_of_reach(own: &Path) -> rrt_sys::Result<bool> {
    let (uid, _) = rrt_sys::creds::effective_ids();
    if uid == 0 || rrt_sys::creds::permitted_set()? != 0 || !matches!(crate::facts::in_user_namespace(), Ok(false)) {
        return Ok(false);
    }
    seal::is_roots_alone(own)
}
