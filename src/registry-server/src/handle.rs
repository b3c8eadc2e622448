//! A request: who may, what it means, who answers it.

use crate::reply::{API_VERSION, Failure, Reply, empty, json_reply, set};
use crate::route::Route;
use crate::uploads::Uploads;
use crate::users::Users;
use crate::{Config, Error, blobs, lists, manifests, uploads};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use rrt_images::names::ImageStore;
use rrt_images::repositories::Repositories;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Cut pulls of `berth` in the same root are left alone for so long.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 86400);

/// What all requests share.
pub(crate) struct State {
    pub config: Config,
    pub repositories: Repositories,
    pub uploads: Uploads,
    images: ImageStore,
    users: Option<Users>,
}

impl State {
    pub fn new(config: Config) -> Result<State, Error> {
        Ok(State {
            repositories: Repositories::new(&config.content),
            images: ImageStore::open(&config.content)?,
            users: config.htpasswd.as_deref().map(Users::read).transpose()?,
            uploads: Uploads::default(),
            config,
        })
    }
}

/// Runs what waits for the disk where it may.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure>
where
    Failure: From<E>,
{
    tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?.map_err(Failure::from)
}

/// Deletes, beside all that goes on, what no repository and no image needs any more.
pub(crate) fn collect(state: &Arc<State>) {
    let state = state.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = state.images.collect(PARTIAL_AGE) {
            (state.config.log)(&format!("collect: {e}"));
        }
    });
}

pub(crate) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let mut reply = dispatch(&state, request).await.unwrap_or_else(|failure| {
        if failure.status.is_server_error() {
            (state.config.log)(&format!("{line}: {}", failure.message()));
        }
        failure.reply()
    });
    set(&mut reply, API_VERSION, "registry/2.0");
    (state.config.log)(&format!("{line} {}", reply.status().as_u16()));
    Ok(reply)
}

async fn dispatch(state: &Arc<State>, request: Request<Incoming>) -> Result<Reply, Failure> {
    authorize(state, &request).await?;
    let route = Route::of(request.uri().path())?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && state.config.read_only {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read only"));
    }
    match (request.method().as_str(), route) {
        ("GET" | "HEAD", Route::Base) => Ok(json_reply(StatusCode::OK, "application/json", &json!({}))),
        ("GET", Route::Catalog) => lists::catalog(state, request.uri().query()).await,
        ("GET", Route::Tags(name)) => lists::tags(state, name, request.uri().query()).await,
        ("GET", Route::Referrers(name, digest)) => lists::referrers(state, name, digest, request.uri().query()).await,
        ("GET" | "HEAD", Route::Manifest(name, reference)) => manifests::get(state, name, reference).await,
        ("PUT", Route::Manifest(name, reference)) => manifests::put(state, name, reference, request).await,
        ("DELETE", Route::Manifest(name, reference)) => manifests::delete(state, name, reference).await,
        ("GET" | "HEAD", Route::Blob(name, digest)) => blobs::get(state, name, digest, &request).await,
        ("DELETE", Route::Blob(name, digest)) => blobs::delete(state, name, digest).await,
        ("POST", Route::Uploads(name)) => uploads::begin(state, name, request).await,
        ("GET", Route::Upload(name, id)) => uploads::status(state, &name, &id),
        ("PATCH", Route::Upload(name, id)) => uploads::patch(state, name, id, request).await,
        ("PUT", Route::Upload(name, id)) => uploads::finish(state, name, id, request).await,
        ("DELETE", Route::Upload(name, id)) => {
            state.uploads.take(&name, &id)?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        (method, route) => {
            let allowed = match route {
                Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
                Route::Blob(..) => "GET, HEAD, DELETE",
                Route::Upload(..) => "GET, PATCH, PUT, DELETE",
                Route::Uploads(..) => "POST",
                _ => "GET",
            };
            let why = format!("{method} is not for {}", request.uri().path());
            Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", why).with(ALLOW, allowed))
        }
    }
}

/// Basic authentication (RFC 7617), when there is a list of users.
async fn authorize(state: &Arc<State>, request: &Request<Incoming>) -> Result<(), Failure> {
    if state.users.is_none() {
        return Ok(());
    }
    let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    let shared = state.clone();
    // A bcrypt hash takes its time, on purpose.
    let known = blocking(move || {
        Ok::<bool, Failure>(shared.users.as_ref().zip(given).is_some_and(|(users, given)| users.know(&given)))
    });
    match known.await? {
        true => Ok(()),
        false => Err(Failure::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
            .with(WWW_AUTHENTICATE, "Basic realm=\"berth registry\"")),
    }
}
