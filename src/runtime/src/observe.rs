//! `state`, `list`, `ps`, `events`: looking, without changing anything.

use crate::error::{Doing, Error, Result};
use crate::state::{State, StateDir, Status, as_text};
use crate::{Runtime, log, processes};
use rrt_cgroups::{OomWatch, Stats};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `state` and `list` print; the fields and their order are runc's.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// The specification's version.
    pub oci_version: &'static str,
    /// The container's name.
    pub id: String,
    /// Init's pid; 0 when it is stopped.
    pub pid: i32,
    /// The status.
    pub status: Status,
    /// The bundle.
    #[serde(serialize_with = "as_text")]
    pub bundle: PathBuf,
    /// The root file system.
    #[serde(serialize_with = "as_text")]
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// `annotations` of config.json.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who created it; empty in `state`.
    pub owner: String,
}

impl StateReport {
    fn new(state: State, dir: &StateDir) -> StateReport {
        let status = state.status(dir);
        StateReport {
            oci_version: rrt_oci::VERSION,
            pid: state.init.map_or(0, |i| if status == Status::Stopped { 0 } else { i.pid }),
            status,
            id: state.id,
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
            owner: String::new(),
        }
    }
}

impl Runtime {
    /// `state`
    pub fn state(&self, id: &str) -> Result<StateReport> {
        let dir = StateDir::open_unlocked(&self.root, id)?;
        Ok(StateReport::new(dir.require()?, &dir))
    }

    /// `list`: every container below the root, by name. One that cannot be read is a warning, not the end of the list.
    pub fn list(&self) -> Result<Vec<StateReport>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing(|| format!("read {:?} ({})", self.root, crate::state::where_else()))?,
        };
        let mut ids: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        ids.sort();
        // The host's own file, small and trusted; a uid without a name is shown as its number.
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let mut reports = Vec::new();
        for id in ids.into_iter().filter(|id| crate::validate_id(id).is_ok()) {
            match StateDir::open_unlocked(&self.root, &id).and_then(|dir| Ok((dir.read()?, dir))) {
                Ok((Some(state), dir)) => {
                    let owner = state.owner;
                    let name = rrt_sys::creds::passwd_entry(&passwd, owner).map(|(name, _)| name);
                    let owner = name.map_or(format!("#{owner}"), |n| String::from_utf8_lossy(n).into_owned());
                    reports.push(StateReport { owner, ..StateReport::new(state, &dir) });
                }
                // Not a container, one just being made, or one that vanished since the directory was read.
                Ok((None, _)) | Err(Error::NotFound(_) | Error::System { .. }) => {}
                Err(e) => log::warn(format!("container {id:?}: {e}")),
            }
        }
        Ok(reports)
    }

    /// `ps`: the pids of all processes of the container, in the runtime's pid namespace.
    pub fn ps(&self, id: &str) -> Result<Vec<i32>> {
        processes::pids(&self.read_state(id)?)
    }

    /// `events --stats`: what the container uses.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        let dir = StateDir::open_unlocked(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Stopped => Err(Error::Status("container not running".into())),
            _ => {
                let mut stats = state.cgroup().stats()?;
                if let Some(rdt) = &state.intel_rdt {
                    stats.intel_rdt = rdt.stats()?;
                }
                Ok(stats)
            }
        }
    }

    /// `events`: tells when the container runs out of memory.
    pub fn oom_watch(&self, id: &str) -> Result<OomWatch> {
        Ok(self.read_state(id)?.cgroup().oom_watch()?)
    }

    fn read_state(&self, id: &str) -> Result<State> {
        StateDir::open_unlocked(&self.root, id)?.require()
    }
}
