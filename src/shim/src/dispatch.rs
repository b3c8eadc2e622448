//! From a method's name and bytes to the task service, and back.

use crate::error::{Code, Error};
use crate::service::Shim;
use crate::ttrpc::{Local, Service};
use prost::Message;
use std::rc::Rc;

/// Both versions have the same methods and messages.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The task service on a connection.
pub struct Tasks {
    shim: Rc<Shim>,
}

impl Tasks {
    /// Serves a shim.
    pub fn new(shim: Rc<Shim>) -> Tasks {
        Tasks { shim }
    }
}

/// Decodes the request, calls, encodes the answer.
fn call<Q, A, F>(payload: &[u8], method: impl FnOnce(Q) -> F) -> Local<Result<Vec<u8>, Error>>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Error>> + 'static,
{
    match Q::decode(payload) {
        Ok(request) => {
            let answer = method(request);
            Box::pin(async move { answer.await.map(|message| message.encode_to_vec()) })
        }
        Err(e) => fail(Error::new(Code::Internal, format!("the request cannot be read: {e}"))),
    }
}

fn fail(error: Error) -> Local<Result<Vec<u8>, Error>> {
    Box::pin(async move { Err(error) })
}

impl Service for Tasks {
    fn call(self: Rc<Self>, service: &str, method: &str, payload: Vec<u8>) -> Local<Result<Vec<u8>, Error>> {
        if !SERVICES.contains(&service) {
            return fail(Error::new(Code::Unimplemented, format!("service {service}")));
        }
        let shim = self.shim.clone();
        let bytes = &payload[..];
        match method {
            "State" => call(bytes, |r| shim.state(r)),
            "Create" => call(bytes, |r| shim.create(r)),
            "Start" => call(bytes, |r| shim.start(r)),
            "Delete" => call(bytes, |r| shim.delete(r)),
            "Pids" => call(bytes, |r| shim.pids(r)),
            "Pause" => call(bytes, |r| shim.pause(r)),
            "Resume" => call(bytes, |r| shim.resume(r)),
            "Checkpoint" => call(bytes, |r| shim.checkpoint(r)),
            "Kill" => call(bytes, |r| shim.kill(r)),
            "Exec" => call(bytes, |r| shim.exec(r)),
            "ResizePty" => call(bytes, |r| shim.resize_pty(r)),
            "CloseIO" => call(bytes, |r| shim.close_io(r)),
            "Update" => call(bytes, |r| shim.update(r)),
            "Wait" => call(bytes, |r| shim.wait(r)),
            "Stats" => call(bytes, |r| shim.stats(r)),
            "Connect" => call(bytes, |r| shim.connect(r)),
            "Shutdown" => call(bytes, |r| shim.shutdown(r)),
            _ => fail(Error::new(Code::Unimplemented, format!("method {method}"))),
        }
    }

    fn only_waits(&self, method: &str) -> bool {
        method == "Wait"
    }
}
