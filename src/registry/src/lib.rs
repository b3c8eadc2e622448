//! The client of the OCI distribution API (distribution-spec 1.1): pull, push, login; Docker's token protocol, its `config.json` and
//! credential helpers; mirrors, private authorities, proxies.
//!
//! What comes from a registry is not trusted: every size has a limit, every digest is verified, credentials go to the registry's
//! own origin and to the token server it names, and nothing that it says is followed outside http and https.
//!
//! Blocking. A [`Client`] is used from as many threads as there are blobs to move at once.

#![forbid(unsafe_code)]

mod auth;
pub mod base64;
mod challenge;
mod client;
mod credentials;
mod date;
mod error;
mod fetch;
mod helper;
mod http;
mod list;
mod login;
mod platform;
mod proxy;
mod pull;
mod push;
mod settings;
mod tls;
mod url;

pub use client::Client;
pub use credentials::{Credential, CredentialFiles, Stored};
pub use error::{Error, Result};
pub use fetch::{FetchWatch, Fetched};
pub use list::Referrers;
pub use login::LoggedIn;
pub use platform::choose;
pub use proxy::Proxies;
pub use pull::{Blob, MAX_CONFIG, MAX_MANIFEST};
pub use push::{PushWatch, Pushed, Unwatched};
pub use settings::{Config, SETTINGS, Settings};
