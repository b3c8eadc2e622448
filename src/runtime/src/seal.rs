//! The exec seal: no process of a container can get hold of this program's file for writing (CVE-2019-5736).
//!
//! A process that enters a container has `/proc/PID/exe` pointing at this program, and an image can have us execute
//! `/proc/self/exe` as its own program. Whoever then opens that link, and waits until we have ended, could overwrite the
//! host's file. So before anything of a container is touched, the program executes itself again from a place where writing
//! is impossible: a read-only mount of the file alone, attached nowhere, which costs no copy; or, where that cannot be made, a sealed
//! memory file. It is left out when the file is proof by itself (fs-verity), and when a user runs the host's (rootless).

use crate::error::{Doing, Error, Result};
use rrt_sys::start::Args;
use rrt_sys::{OFlags, path, seal};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Set for the second execution. It only ends the loop: that we are sealed is checked, not believed.
const MARK: &CStr = c"_RRT_SEALED=1";

/// Makes sure that this process runs from a sealed place; otherwise executes itself again from one, with the same arguments.
///
/// # Errors
/// When no seal can be made: then no container is entered.
pub fn ensure(args: Args) -> Result<()> {
    let doing = || "protect the runtime's own file (CVE-2019-5736)".to_string();
    let own = Path::new("/proc/self/exe");
    if std::env::var_os("_RRT_SEALED").is_some() {
        return match seal::runs_sealed().doing(doing)? {
            true => Ok(()),
            false => Err(Error::Usage("_RRT_SEALED is set but the runtime is not sealed; unset it".into())),
        };
    }
    let is_immutable = |file: &OwnedFd| seal::is_immutable(file.as_fd()).doing(doing);
    let sealed = match seal::detached(own) {
        Ok(mount) if is_immutable(&mount)? => return Ok(()),
        Ok(mount) => mount,
        // Without the right to make mounts.
        Err(_)
            if is_immutable(&path::open(own, OFlags::PATH).doing(doing)?)? || is_out_of_reach(own).doing(doing)? =>
        {
            return Ok(());
        }
        Err(_) => seal::memory_file(own).doing(doing)?,
    };
    Err(Error::System { doing: doing(), source: args.execute(sealed.as_fd(), MARK) })
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
