//! `delete`: containerd calls it when the shim is gone, to have whatever it has left taken down.

use crate::args::Args;
use crate::container::{runtime, saved_options};
use crate::error::Error;
use crate::log;
use crate::mounts;
use crate::proto::task::DeleteResponse;
use crate::time;
use prost::Message;
use std::path::PathBuf;

/// Deletes by force; answers for a process that was killed, in which state ever it was.
///
/// # Errors
/// There is no working directory. What cannot be taken down is a warning, so that the rest is.
pub async fn delete(args: &Args) -> Result<Vec<u8>, Error> {
    let bundle = bundle(args)?;
    let runtime = runtime(&saved_options(&bundle), &args.namespace, &bundle);
    // After an ordinary end, which is when containerd calls as well, there is nothing left to be deleted.
    let state = runtime.root.join(&args.id);
    let deleted =
        state.symlink_metadata().is_ok().then(|| runtime.delete(&args.id, true).map(rrt_runtime_client::Call::run));
    match deleted.transpose() {
        Ok(Some(Err(e))) if !e.is_unknown_container() => log::warn(format_args!("failed to remove container: {e}")),
        Err(e) => log::warn(format_args!("failed to remove container: {e}")),
        Ok(_) => {}
    }
    let rootfs = bundle.join("rootfs");
    for dir in [mounts::layers_place(&rootfs), rootfs] {
        if let Err(e) = mounts::unmount_all(&dir).await {
            log::warn(format_args!("failed to cleanup rootfs mount: {e}"));
        }
    }
    let pid = rrt_runtime_client::read_pid(&bundle.join("init.pid")).unwrap_or(0);
    let answer = DeleteResponse { pid: pid.cast_unsigned(), exit_status: 128 + 9, exited_at: Some(time::now()) };
    Ok(answer.encode_to_vec())
}

/// containerd's working directory for it is a bundle, but not always that of this container.
fn bundle(args: &Args) -> Result<PathBuf, Error> {
    if let Some(bundle) = &args.bundle {
        return Ok(bundle.clone());
    }
    let dir = std::env::current_dir().map_err(|e| Error::system("getcwd", e))?;
    Ok(dir.parent().unwrap_or(&dir).join(&args.id))
}
