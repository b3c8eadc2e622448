//! Answers, and the errors of the distribution specification ("Error Codes").

use crate::body::Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use rrt_images::names;
use rrt_oci::image::Digest;
use serde_json::{Value, json};

pub(crate) type Reply = Response<Body>;

/// A request that failed: what its answer says.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, String)>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), header: None }
    }

    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Failure {
        self.header = Some((name, value.into()));
        self
    }

    pub fn unknown_blob(digest: &Digest) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("blob {digest} unknown to the repository"))
    }

    pub fn unknown_manifest(reference: &str) -> Failure {
        Failure::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("manifest {reference} unknown to the repository"),
        )
    }

    pub fn unknown_repository(name: &str) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("repository {name} not known to the registry"))
    }

    pub fn invalid_digest(text: &str) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", format!("{text:?} is no digest"))
    }

    pub fn unknown_upload() -> Failure {
        Failure::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "no such upload: it was finished, cancelled or too old",
        )
    }

    /// What went wrong here, and not with the request.
    pub fn internal(why: impl std::fmt::Display) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", why.to_string())
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn reply(self) -> Reply {
        let body = json!({"errors": [{"code": self.code, "message": self.message, "detail": Value::Null}]});
        let mut reply = json_reply(self.status, "application/json", &body);
        if let Some((name, value)) = self.header {
            set(&mut reply, name, &value);
        }
        reply
    }
}

impl From<rrt_content::Error> for Failure {
    fn from(error: rrt_content::Error) -> Failure {
        match &error {
            rrt_content::Error::NoSpace { .. } => {
                Failure::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", error.to_string())
            }
            rrt_content::Error::Digest { .. } => {
                Failure::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
            }
            rrt_content::Error::Size { .. } => Failure::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", error.to_string()),
            rrt_content::Error::Missing(digest) => Failure::unknown_blob(digest),
            _ => Failure::internal(error),
        }
    }
}

impl From<names::Error> for Failure {
    fn from(error: names::Error) -> Failure {
        match error {
            names::Error::Content(error) => error.into(),
            other => Failure::internal(other),
        }
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        set(&mut reply, CONTENT_LENGTH, "0");
    }
    reply
}

pub(crate) fn json_reply(status: StatusCode, kind: &str, value: &Value) -> Reply {
    let mut reply = bytes(kind, value.to_string().into_bytes());
    *reply.status_mut() = status;
    reply
}

pub(crate) fn bytes(kind: &str, bytes: Vec<u8>) -> Reply {
    let length = bytes.len();
    let mut reply = Response::new(Body::bytes(bytes));
    set(&mut reply, CONTENT_TYPE, kind);
    set(&mut reply, CONTENT_LENGTH, &length.to_string());
    reply
}

/// 201: where the new thing is, and its digest.
pub(crate) fn created(location: &str, digest: &Digest) -> Reply {
    let mut reply = empty(StatusCode::CREATED);
    set(&mut reply, LOCATION, location);
    set(&mut reply, DIGEST, digest.as_str());
    reply
}

/// Sets a header; a value that can't be one is left out.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
