//! Uploads: at once, in chunks, in a stream, or by mounting what another repository has (distribution-spec, "Pushing blobs").

use crate::handle::{State, blocking};
use crate::reply::{Failure, Reply, UPLOAD_UUID, created, empty, set};
use crate::route::parameter;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, LOCATION, RANGE};
use hyper::{Request, StatusCode};
use rrt_content::Writer;
use rrt_images::repositories::Name;
use rrt_oci::image::Digest;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// An upload that nobody goes on with for so long is dropped.
const IDLE: Duration = Duration::from_secs(3600);
/// A client that sends nothing for so long is gone.
const STALL: Duration = Duration::from_secs(300);
/// So many uploads at once.
const MOST: usize = 1000;
/// So much is received before it is written.
const PIECE: usize = 512 << 10;

/// The uploads under way, by their ids.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Slot>>);

struct Slot {
    name: Name,
    used: Instant,
    /// `None` while a request writes.
    upload: Option<Writer>,
}

impl Uploads {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &Name, writer: Writer) -> Result<String, Failure> {
        let mut all = self.all();
        if all.len() >= MOST {
            let why = format!("{MOST} uploads are under way");
            return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", why));
        }
        let id = random_id().map_err(Failure::internal)?;
        all.insert(id.clone(), Slot { name: name.clone(), used: Instant::now(), upload: Some(writer) });
        Ok(id)
    }

    /// The writer, for one request.
    fn borrow(&self, name: &Name, id: &str) -> Result<Writer, Failure> {
        let mut all = self.all();
        let slot = all.get_mut(id).filter(|slot| slot.name == *name).ok_or_else(Failure::unknown_upload)?;
        let busy =
            || Failure::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request writes to this upload");
        slot.upload.take().ok_or_else(busy)
    }

    fn give_back(&self, id: &str, writer: Writer) {
        if let Some(slot) = self.all().get_mut(id) {
            (slot.upload, slot.used) = (Some(writer), Instant::now());
        }
    }

    /// Ends an upload.
    pub fn take(&self, name: &Name, id: &str) -> Result<Writer, Failure> {
        let writer = self.borrow(name, id)?;
        self.all().remove(id);
        Ok(writer)
    }

    /// Drops those that nobody goes on with.
    pub fn sweep(&self) {
        self.all().retain(|_, slot| slot.upload.is_none() || slot.used.elapsed() < IDLE);
    }
}

/// Begins an upload, or does it whole: with `digest` the body is the blob, with `mount` another repository may have it.
pub(crate) async fn begin(state: &Arc<State>, name: Name, request: Request<Incoming>) -> Result<Reply, Failure> {
    let query = request.uri().query().map(str::to_owned);
    let query = query.as_deref();
    if let Some(text) = parameter(query, "mount") {
        let digest: Digest = text.parse().map_err(|_| Failure::invalid_digest(&text))?;
        let from = parameter(query, "from").and_then(|from| Name::new(&from));
        if mount(state, &name, &digest, from).await? {
            return Ok(created(&location(&name, &digest), &digest));
        }
    }
    let digest = wanted_digest(query)?;
    let shared = state.clone();
    let writer = blocking(move || {
        let lease = shared.config.content.lease()?;
        shared.config.content.writer(&lease)
    })
    .await?;
    match digest {
        Some(digest) => {
            let (writer, received) = receive(writer, request).await;
            received?;
            commit(state, name, writer, digest).await
        }
        None => {
            let id = state.uploads.add(&name, writer)?;
            Ok(accepted(StatusCode::ACCEPTED, &name, &id, 0))
        }
    }
}

async fn mount(state: &Arc<State>, name: &Name, digest: &Digest, from: Option<Name>) -> Result<bool, Failure> {
    let Some(from) = from else { return Ok(false) };
    let (shared, name, digest) = (state.clone(), name.clone(), digest.clone());
    blocking(move || {
        let lease = shared.config.content.lease()?;
        lease.add(&digest)?;
        let found = shared.repositories.has_blob(&from, &digest)?;
        if found {
            shared.repositories.add_blob(&name, &digest)?;
        }
        Ok::<bool, Failure>(found)
    })
    .await
}

/// How far an upload is.
pub(crate) fn status(state: &Arc<State>, name: &Name, id: &str) -> Result<Reply, Failure> {
    let writer = state.uploads.borrow(name, id)?;
    let offset = writer.offset();
    state.uploads.give_back(id, writer);
    Ok(accepted(StatusCode::NO_CONTENT, name, id, offset))
}

/// Adds a chunk. What came of one that was cut stays, and the client asks how much that is.
pub(crate) async fn patch(
    state: &Arc<State>,
    name: Name,
    id: String,
    request: Request<Incoming>,
) -> Result<Reply, Failure> {
    let writer = state.uploads.borrow(&name, &id)?;
    if let Err(failure) = check_range(&request, writer.offset()) {
        state.uploads.give_back(&id, writer);
        return Err(failure);
    }
    let state = state.clone();
    // Apart from the connection, whose end would otherwise take the writer along.
    let received = tokio::spawn(async move {
        let (writer, received) = receive(writer, request).await;
        let offset = writer.offset();
        state.uploads.give_back(&id, writer);
        received.map(|()| accepted(StatusCode::ACCEPTED, &name, &id, offset))
    });
    received.await.map_err(Failure::internal)?
}

/// Ends an upload, with a last chunk or none.
pub(crate) async fn finish(
    state: &Arc<State>,
    name: Name,
    id: String,
    request: Request<Incoming>,
) -> Result<Reply, Failure> {
    let missing = || Failure::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the parameter digest is missing");
    let digest = wanted_digest(request.uri().query())?.ok_or_else(missing)?;
    let writer = state.uploads.borrow(&name, &id)?;
    if let Err(failure) = check_range(&request, writer.offset()) {
        state.uploads.give_back(&id, writer);
        return Err(failure);
    }
    let state = state.clone();
    let finished = tokio::spawn(async move {
        let (writer, received) = receive(writer, request).await;
        if let Err(failure) = received {
            state.uploads.give_back(&id, writer);
            return Err(failure);
        }
        let committed = commit(&state, name, writer, digest).await;
        state.uploads.all().remove(&id);
        committed
    });
    finished.await.map_err(Failure::internal)?
}

fn wanted_digest(query: Option<&str>) -> Result<Option<Digest>, Failure> {
    let text = parameter(query, "digest");
    text.map(|text| text.parse().map_err(|_| Failure::invalid_digest(&text))).transpose()
}

/// A chunk says where it begins (`0-1023`), which must be where the last one ended.
fn check_range<B>(request: &Request<B>, offset: u64) -> Result<(), Failure> {
    let Some(range) = request.headers().get(CONTENT_RANGE) else { return Ok(()) };
    let start: Option<u64> =
        range.to_str().ok().and_then(|text| text.split_once('-')).and_then(|(start, _)| start.parse().ok());
    match start {
        Some(start) if offset == start => Ok(()),
        _ => {
            let why = format!("the next chunk begins at {offset}");
            Err(Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", why).with(RANGE, until(offset)))
        }
    }
}

/// Writes a request's body. The writer comes back with what has come, whatever happens.
async fn receive(mut writer: Writer, request: Request<Incoming>) -> (Writer, Result<(), Failure>) {
    let mut body = request.into_body();
    let mut ended = false;
    while !ended {
        let mut piece = Vec::new();
        let mut broken = None;
        while piece.len() < PIECE && !ended && broken.is_none() {
            match timeout(STALL, body.frame()).await {
                Ok(Some(Ok(frame))) => piece.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(Some(Err(e))) => broken = Some(format!("the request was cut: {e}")),
                Ok(None) => ended = true,
                Err(_) => broken = Some(format!("nothing came for {} s", STALL.as_secs())),
            }
        }
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.append(&piece);
            (writer, written)
        });
        let written = match written.await {
            Ok((back, written)) => {
                writer = back;
                written
            }
            // Only a panic ends it otherwise, and a panic ends this program.
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        };
        if let Err(e) = written {
            return (writer, Err(e.into()));
        }
        if let Some(why) = broken {
            return (writer, Err(Failure::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why)));
        }
    }
    (writer, Ok(()))
}

/// Gives the blob its name and to the repository, once it is on the disk.
async fn commit(state: &Arc<State>, name: Name, mut writer: Writer, digest: Digest) -> Result<Reply, Failure> {
    let shared = state.clone();
    blocking(move || {
        // Holds it until the repository does.
        let lease = writer.lease();
        writer.expect(&digest);
        writer.sync()?;
        writer.commit()?;
        shared.repositories.add_blob(&name, &digest)?;
        drop(lease);
        Ok::<Reply, Failure>(created(&location(&name, &digest), &digest))
    })
    .await
}

fn location(name: &Name, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", name.as_str())
}

/// Where to go on, and how much is there. The last byte's number, so that nothing and one byte look alike, as in every registry.
fn accepted(status: StatusCode, name: &Name, id: &str, offset: u64) -> Reply {
    let mut reply = empty(status);
    set(&mut reply, LOCATION, &format!("/v2/{}/blobs/uploads/{id}", name.as_str()));
    set(&mut reply, RANGE, &until(offset));
    set(&mut reply, UPLOAD_UUID, id);
    reply
}

fn until(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// 128 random bits: who knows an upload's id may write to it.
fn random_id() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
