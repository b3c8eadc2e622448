//! Ctrl-C, and being asked to end: the work stops between two buffers and leaves everything whole.

use crate::exit::Exit;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports of a program that SIGINT ended.
pub const INTERRUPTED: u8 = 130;
/// Whoever works may hang in a slow answer. Everything survives a kill at any moment, so it need not be waited for longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Has somebody asked to stop?
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the signals that ask a program to end do so in two steps: first [`Interrupt::happened`] says so; then, at the
    /// second signal or after some seconds, the process ends with code 130.
    ///
    /// Without them (no thread, no descriptors) the signals end the process at once, as they do by default.
    pub fn listen() -> Interrupt {
        let interrupt = Interrupt(Arc::default());
        let asked = interrupt.clone();
        // A handler, and no mask, so that programs started meanwhile (credential helpers, fuse-overlayfs) have the default again.
        let _ = thread::Builder::new().name("signals".to_owned()).spawn(move || asked.wait());
        interrupt
    }

    /// Has a signal come?
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The end of a command that failed with `exit`: when somebody asked to stop, that is why.
    pub fn or(&self, exit: Exit) -> Exit {
        match self.happened() {
            true => Exit { code: INTERRUPTED, message: MESSAGE.to_owned() },
            false => exit,
        }
    }

    #[allow(clippy::exit, reason = "the threads that still work are to be ended, wherever they are")]
    fn wait(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else { return };
            any(&mut interrupt, &mut terminate, &mut hangup).await;
            self.0.store(true, Ordering::Relaxed);
            let _ = tokio::time::timeout(PATIENCE, any(&mut interrupt, &mut terminate, &mut hangup)).await;
            eprintln!("{MESSAGE}");
            process::exit(INTERRUPTED.into());
        });
    }
}

async fn any(first: &mut Signal, second: &mut Signal, third: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
        _ = third.recv() => {}
    }
}

/// What is said then.
pub const MESSAGE: &str = "berth: interrupted; nothing is half-made, and the same command goes on with what is there";
