//! `berth registry serve`: an OCI registry (distribution-spec 1.1) over the content store, for a team without one, a machine without a
//! network, and tests.
//!
//! One thread speaks HTTP; what waits for the disk or hashes runs on tokio's blocking threads. What is pushed is in the store that
//! `berth`'s images are in, so a blob that both have is there once; which repository has what is in [`rrt_images::repositories`].
//! An upload lives in this process: after a restart the client begins it anew, as the specification allows.

#![forbid(unsafe_code)]

mod blobs;
mod body;
mod handle;
mod lists;
mod manifests;
mod reply;
mod route;
mod uploads;
mod users;

use handle::State;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rrt_content::Store;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, sleep, timeout};

/// A client has so long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way have so long to end after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// So often uploads that nobody goes on with are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// After so many of these, blobs without a manifest are collected.
const COLLECT_EVERY: u32 = 60;

/// What to serve, and where.
pub struct Config {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The content, beside which the repositories are.
    pub content: Store,
    /// A file of `user:bcrypt` lines (`htpasswd -B`): who may do anything. `None`: everybody may.
    pub htpasswd: Option<PathBuf>,
    /// Refuse pushes and deletions.
    pub read_only: bool,
    /// Gets one line for each request and each failure that is no request's fault.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config {{ listen: {}, read_only: {}, htpasswd: {:?} }}", self.listen, self.read_only, self.htpasswd)
    }
}

/// Why the server can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file of users can't be read, or a line of it.
    #[error("{}: {why}", path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Threads, timers or signals can't be had.
    #[error("can't start the server: {0}")]
    Start(#[source] io::Error),
    /// The names beside the content can't be read.
    #[error(transparent)]
    Names(#[from] rrt_images::names::Error),
}

/// Serves until SIGTERM or SIGINT; requests under way are then finished, for ten seconds at most. `ready` hears the address once
/// clients can connect.
pub fn serve(config: Config, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let listen = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let state = Arc::new(State::new(config)?);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Start)?;
        let term = signal(SignalKind::terminate()).map_err(Error::Start)?;
        let int = signal(SignalKind::interrupt()).map_err(Error::Start)?;
        ready(address);
        run(state, listener, term, int).await;
        Ok(())
    })
}

async fn run(state: Arc<State>, listener: tokio::net::TcpListener, mut term: Signal, mut int: Signal) {
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut sweeps = interval(SWEEP_EVERY);
    let mut swept = 0u32;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = sweeps.tick() => {
                state.uploads.sweep();
                if swept.is_multiple_of(COLLECT_EVERY) {
                    handle::collect(&state);
                }
                swept += 1;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let state = state.clone();
                    let service = service_fn(move |request| handle::answer(state.clone(), request));
                    let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
                    // A connection that breaks is its client's affair.
                    tokio::spawn(async { drop(connection.await) });
                }
                Err(e) => {
                    // Out of descriptors, most likely: others will end.
                    (state.config.log)(&format!("accept: {e}"));
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(STOP_TIMEOUT, graceful.shutdown()).await;
}
