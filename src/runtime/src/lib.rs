//! The OCI operations. Read [`create`] (the parent's sequence) and [`init`] (the child's): they are one container's way
//! from config.json to execve, each straight down in the order things happen.
//!
//! Everything that varies is data, settled beforehand in a [`Plan`]; the modules named after a concept (`mounts`, `devices`,
//! `masked_paths`, …) hold how it is planned and how it is applied. See DESIGN.md beside this crate.

#![forbid(unsafe_code)]

mod annotations;
mod check;
mod checkpoint;
mod console;
mod core_sched;
mod courier;
mod create;
mod criu;
mod delete;
mod devices;
mod error;
mod exec;
mod external;
mod facts;
pub mod features;
mod foreground;
pub mod handshake;
mod hooks;
mod host_root;
mod id_maps;
pub mod info;
mod init;
mod intel_rdt;
mod kill;
mod landlock;
mod launch;
pub mod log;
pub mod lsm;
mod masked_paths;
mod memory_policy;
pub mod mounts;
mod namespaces;
mod net_devices;
mod notify;
mod observe;
mod oom;
mod plan;
mod private_proc;
pub mod probe;
mod process;
mod processes;
mod program;
mod raw_filter;
mod rebirth;
mod restore;
mod rootfs;
pub mod seal;
mod seccomp;
pub mod spec_template;
mod start;
mod state;
mod sysctl;
pub mod time;
mod trees;
mod wait;

pub use check::{Finding, Severity};
pub use checkpoint::CheckpointOptions;
pub use criu::options::{CriuOptions, ManageCgroups, NetworkLock};
pub use error::{Error, Result};
pub use facts::{HostFacts, OwnMaps};
pub use kill::RdtUpdate;
pub use mounts::running::{Change as MountChange, Mounted};
pub use observe::StateReport;
pub use plan::Plan;
pub use restore::RestoreOptions;
pub use rrt_cgroups::{DeviceRule, OomNews, OomWatch, Stats};
pub use state::{Status, validate_id};

use std::path::PathBuf;

/// Who manages cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    /// This program, through the cgroup file system.
    Cgroupfs,
    /// systemd, over D-Bus.
    Systemd,
    /// Nobody: the container stays where the runtime is.
    Disabled,
}

/// Where and how the runtime works: the global flags.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where state is kept, `--root`.
    pub root: PathBuf,
    /// `--cgroup-manager`, `--systemd-cgroup`.
    pub cgroup_manager: CgroupManager,
    /// `--rootless`; `None` is `auto`.
    pub rootless: Option<bool>,
}

/// `create`, and the first half of `run`.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The container's name.
    pub id: String,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Another name for config.json (`--config`, an extra of crun's).
    pub config: Option<PathBuf>,
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where init's pidfd is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where init's pid is written.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many fds from 3 on the container inherits.
    pub preserve_fds: u32,
}

/// `run`
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// As for `create`.
    pub create: CreateOptions,
    /// Return once the program runs.
    pub detach: bool,
    /// Do not delete the container when it has ended.
    pub keep: bool,
    /// Leave orphans to whoever reaps them.
    pub no_subreaper: bool,
}

/// `exec`
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The container's name.
    pub id: String,
    /// A file with the `process` document; the flags below it are then not looked at.
    pub process: Option<PathBuf>,
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where the process' pidfd is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where its pid is written.
    pub pid_file: Option<PathBuf>,
    /// Return once the program runs.
    pub detach: bool,
    /// A terminal, or explicitly none.
    pub tty: Option<bool>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Variables added to the container's.
    pub env: Vec<String>,
    /// User and group.
    pub user: Option<(u32, Option<u32>)>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Capabilities added to the container's.
    pub caps: Vec<String>,
    /// Set no_new_privs.
    pub no_new_privs: bool,
    /// SELinux label.
    pub process_label: Option<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// How many fds from 3 on the process inherits.
    pub preserve_fds: u32,
    /// A cgroup below the container's, `[controllers:]path`.
    pub cgroup: Vec<String>,
    /// Also into a paused container: the process starts when it is resumed.
    pub ignore_paused: bool,
    /// Leave orphans to whoever reaps them.
    pub no_subreaper: bool,
    /// The program and its arguments.
    pub args: Vec<String>,
}
