//! What a long operation tells whoever watches it. `berth` draws it as Docker does; [`Silent`] and tests do not.

use std::fmt;

/// Hears of a pull, push or load, from any of its threads. Calls are frequent (after every buffer): an implementation decides itself how
/// often it draws, and must not wait.
pub trait Progress: Send + Sync {
    /// Layer `id` (the first 12 hexadecimal digits of its digest) is at `phase`: `done` bytes of `total`, which is `None` when nobody
    /// knows it. Both are 0 and `None` for phases that have no amount.
    fn layer(&self, id: &str, phase: Phase<'_>, done: u64, total: Option<u64>);

    /// A line that belongs to the whole: `latest: Pulling from library/busybox`, `Digest: sha256:…`, a retry's reason.
    fn line(&self, text: &str);

    /// Has somebody asked to stop (Ctrl-C)? Whoever works looks here between two buffers, leaves everything whole and returns its
    /// "cancelled" error.
    fn cancelled(&self) -> bool {
        false
    }
}

/// What is being done to a layer. As text ([`fmt::Display`]): Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase<'a> {
    /// Pull: known, nothing done yet.
    PullingFsLayer,
    /// Pull and push: as many layers as may be at once are under way already.
    Waiting,
    /// Pull: bytes of the compressed layer.
    Downloading,
    /// Pull: all of it is here, and hashed.
    VerifyingChecksum,
    /// Pull: verified, not yet unpacked.
    DownloadComplete,
    /// Pull and load: unpacked so far, in bytes of the compressed layer.
    Extracting,
    /// Pull: it is there.
    PullComplete,
    /// Pull: it was there before.
    AlreadyExists,
    /// Pull, push: it failed and is tried again in so many seconds.
    Retrying(u32),
    /// Push: known, nothing done yet.
    Preparing,
    /// Push: bytes sent.
    Pushing,
    /// Push: it is there.
    Pushed,
    /// Push: it was there before.
    LayerAlreadyExists,
    /// Push: the registry had it in this other repository.
    MountedFrom(&'a str),
    /// Load: bytes of the archive's layer.
    LoadingLayer,
}

impl Phase<'_> {
    /// Nothing comes after it.
    pub fn is_last(self) -> bool {
        use Phase::*;
        matches!(self, PullComplete | AlreadyExists | Pushed | LayerAlreadyExists | MountedFrom(_))
    }

    /// It has an amount, drawn as a bar.
    pub fn has_bar(self) -> bool {
        use Phase::*;
        matches!(self, Downloading | Extracting | Pushing | LoadingLayer)
    }
}

impl fmt::Display for Phase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::PullingFsLayer => "Pulling fs layer",
            Phase::Waiting => "Waiting",
            Phase::Downloading => "Downloading",
            Phase::VerifyingChecksum => "Verifying Checksum",
            Phase::DownloadComplete => "Download complete",
            Phase::Extracting => "Extracting",
            Phase::PullComplete => "Pull complete",
            Phase::AlreadyExists => "Already exists",
            Phase::Retrying(seconds) => {
                let plural = if *seconds == 1 { "" } else { "s" };
                return write!(f, "Retrying in {seconds} second{plural}");
            }
            Phase::Preparing => "Preparing",
            Phase::Pushing => "Pushing",
            Phase::Pushed => "Pushed",
            Phase::LayerAlreadyExists => "Layer already exists",
            Phase::MountedFrom(repository) => return write!(f, "Mounted from {repository}"),
            Phase::LoadingLayer => "Loading layer",
        })
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layer(&self, _: &str, _: Phase<'_>, _: u64, _: Option<u64>) {}
    fn line(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_dockers_words() {
        assert_eq!(Phase::PullingFsLayer.to_string(), "Pulling fs layer");
        assert_eq!(Phase::MountedFrom("library/busybox").to_string(), "Mounted from library/busybox");
        assert_eq!(Phase::Retrying(1).to_string(), "Retrying in 1 second");
        assert_eq!(Phase::Retrying(5).to_string(), "Retrying in 5 seconds");
        assert!(Phase::AlreadyExists.is_last() && !Phase::DownloadComplete.is_last());
        assert!(Phase::Pushing.has_bar() && !Phase::Waiting.has_bar());
    }
}
