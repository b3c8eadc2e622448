//! The daemon: one thread that serves the socket, reaps, and forwards events, until containerd says that it is not needed any more.

use crate::args::Args;
use crate::dispatch;
use crate::error::Error;
use crate::log;
use crate::publish::Publisher;
use crate::reaper::{Reaper, become_subreaper};
use crate::service::Shim;
use crate::ttrpc;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;

/// What containerd has not taken of the last events by then it will not take.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a last answer may take to be written.
const ANSWER: Duration = Duration::from_millis(100);

/// Runs until the end. Standard input is the socket.
///
/// # Errors
/// It is not, or the kernel refuses what a shim needs.
pub async fn run(args: &Args) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::system("serve the socket", e);
    become_subreaper()?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
    // Not to keep a bundle's file system busy.
    rustix::process::chdir("/").map_err(|e| Error::system("chdir", e))?;

    let reaper = Rc::new(Reaper::default());
    let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let events = Publisher::new(args, &address, reaper.clone());
    let shim = Shim::new(&args.namespace, reaper.clone(), events.clone());
    spawn_local(events.clone().run());
    let busy = Rc::new(ttrpc::Busy::default());
    spawn_local(ttrpc::serve(listener, Rc::new(dispatch::Tasks::new(shim.clone())), busy.clone()));

    let on = |kind| signal(kind).map_err(|e| Error::system("sigaction", e));
    let (mut child, mut term, mut int) =
        (on(SignalKind::child())?, on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            // Also once at the beginning would be too early: nothing has been started.
            _ = child.recv() => reaper.reap(),
            _ = term.recv() => break log::debug("SIGTERM"),
            _ = int.recv() => break log::debug("SIGINT"),
            () = shim.done.notified() => break,
        }
    }
    if !args.socket.is_empty() {
        // First, so that no further container of the pod comes to us.
        let _ = std::fs::remove_file(&args.socket);
    }
    let drained = events.drained(DRAIN);
    tokio::pin!(drained);
    // A program that is told an event has to be waited for, too.
    loop {
        tokio::select! {
            _ = child.recv() => reaper.reap(),
            () = &mut drained => break,
        }
    }
    // The answer to Shutdown has to leave before the connection ends with us. After a signal there may be one that never comes.
    let _ = tokio::time::timeout(ANSWER, busy.idle()).await;
    Ok(())
}
