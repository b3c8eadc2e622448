//! The cgroup of a container: make it, join it, limit it, freeze it, read it, signal it, remove it.
//!
//! cgroup v1, v2, and hybrid machines (v1 controllers with a unified hierarchy beside them), through the cgroup file
//! system, or by a unit of systemd's. [`HostCgroups::read`] says what the machine has, [`plan`] works the container's cgroup out from that without
//! touching anything, and [`Cgroup::create`] makes what was planned. Everything later starts from the few lines of
//! [`SavedCgroup`] in the state file.
//!
//! On a hybrid machine a container is in every v1 hierarchy and in the unified one, as with runc. A limit goes to the v1
//! hierarchy that has the controller, or else to the unified one if that has it.
#![forbid(unsafe_code)]

mod bpf;
mod cgroup;
mod check;
mod convert;
mod create;
mod delete;
mod device;
mod dir;
mod error;
mod freeze;
mod host;
mod kill;
mod oom;
mod path;
mod plan;
mod resources;
mod setting;
mod stats;
mod systemd;
mod update;
mod update_devices;

#[cfg(test)]
mod testing;

pub use cgroup::{Cgroup, FreezerState, SavedCgroup, SubCgroups};
pub use device::{Access, DeviceKind, DeviceRule};
pub use error::Error;
pub use host::{Hierarchy, HostCgroups, Mode, Version};
pub use oom::{OomKills, OomNews, OomWatch};
pub use plan::{CgroupPlan, Manager, PlannedWrite, plan, plan_unit};
pub use stats::{
    BandwidthInfo, BlkIo, BlkIoEntry, CacheInfo, CmtStats, Cpu, CpuSet, CpuUsage, HugeTlb, IntelRdt, MbmStats, Memory,
    MemoryEntry, Pids, Pressure, PressureData, Stats, Throttling,
};
pub use systemd::{BusError, PROPERTY_ANNOTATION, Property, Systemd, SystemdFacts, UnitPlan};
pub use update_devices::with_device_rules;
