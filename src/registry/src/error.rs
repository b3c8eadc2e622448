//! What can go wrong, by what a caller can do about it.

use rrt_oci::image::Digest;
use std::path::PathBuf;
use std::time::Duration;

/// An error of a registry, of the way to it, or of the files that say how to reach it. Its text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry has no such manifest, blob or repository.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// `manifest for busybox:x`, `blob sha256:… of busybox`.
        what: String,
        /// What the registry says.
        detail: String,
    },
    /// The registry refuses a pull; some answer so for a repository that is not there.
    #[error("pull access denied for {name}, repository does not exist or may require 'berth login': {detail}")]
    PullDenied {
        /// The repository.
        name: String,
        /// What the registry says.
        detail: String,
    },
    /// The registry refuses a push.
    #[error(
        "push access denied for {name}: {detail}; log in as a user who may push there with 'berth login {registry}'"
    )]
    PushDenied {
        /// The repository.
        name: String,
        /// For `login`.
        registry: String,
        /// What the registry says.
        detail: String,
    },
    /// Name and password are wrong.
    #[error("Get {url:?}: unauthorized: {detail}")]
    Unauthorized {
        /// What was asked.
        url: String,
        /// What the registry says.
        detail: String,
    },
    /// HTTP status 429, still after waiting.
    #[error("toomanyrequests: {registry} takes no more requests for now: {detail}{}{}", shown_limit(.limit), shown_wait(.retry_after))]
    RateLimited {
        /// Who said so.
        registry: String,
        /// What it says.
        detail: String,
        /// `ratelimit-limit` and `ratelimit-remaining`, when they were given.
        limit: Option<String>,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// An index has nothing for the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries: {name} is there for {}", available.join(", "))]
    NoPlatform {
        /// The image.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The image is in the format that registries had before 2016.
    #[error(
        "{name} is in Docker's image format version 1, schema 1, which was given up because its digest does not cover all of \
         the image; pull and push it again with a Docker older than 26, or rebuild it"
    )]
    Schema1 {
        /// The image.
        name: String,
    },
    /// The answer is not what the API says.
    #[error("{url}: {why}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A status that has no meaning of its own here.
    #[error("{method} {url}: the registry answered {status}: {detail}")]
    Status {
        /// `GET`, …
        method: String,
        /// What was asked.
        url: String,
        /// HTTP's status.
        status: u16,
        /// What the registry says.
        detail: String,
    },
    /// No answer.
    #[error("{method} {url}: {why}")]
    Connect {
        /// `GET`, …
        method: String,
        /// What was asked.
        url: String,
        /// Why there is none, and what to do.
        why: String,
        /// Nothing was listening, or the name is not known: trying again helps seldom.
        refused: bool,
    },
    /// Content that is not what its digest says.
    #[error("{what} from {registry} is not what its digest says: expected {expected}, received {received}")]
    Digest {
        /// `manifest of busybox:1`
        what: String,
        /// Where it came from.
        registry: String,
        /// The digest that was asked for.
        expected: Digest,
        /// That of what came.
        received: String,
    },
    /// A file that can't be read or written.
    #[error("can't {what} {}: {source}", path.display())]
    File {
        /// `read`, `write`, …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that does not say what it should.
    #[error("{}: {why}", path.display())]
    Settings {
        /// Which.
        path: PathBuf,
        /// What is wrong and what is expected.
        why: String,
    },
    /// A credential helper that fails.
    #[error("{program} {verb}: {why}")]
    Helper {
        /// `docker-credential-…`
        program: String,
        /// `get`, `store`, `erase`
        verb: &'static str,
        /// What it says.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Content(#[from] rrt_content::Error),
    /// Whoever watches wanted it to end.
    #[error("cancelled")]
    Cancelled,
    /// The caller's mistake.
    #[error("{0}")]
    Invalid(String),
}

fn shown_limit(limit: &Option<String>) -> String {
    limit.as_ref().map(|text| format!(" (limit {text})")).unwrap_or_default()
}

fn shown_wait(after: &Option<Duration>) -> String {
    after.map(|after| format!("; try again in {} s", after.as_secs())).unwrap_or_default()
}

impl Error {
    /// Would the same request a moment later have another answer?
    pub(crate) fn passes(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::RateLimited { .. } => true,
            Error::Status { status, .. } => matches!(status, 408 | 500 | 502..=504),
            _ => false,
        }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
