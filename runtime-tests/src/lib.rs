//! Black-box tests over an OCI runtime binary: the harness.
//!
//! A test makes a [`Container`], changes its `config`, calls the runtime, and looks at what the program inside
//! (`src/bin/guest.rs`) reports. When the `Container` goes out of scope it is deleted with force, and the test fails if a
//! cgroup, a mount, a file or a process of it is left.
//!
//! | variable | meaning |
//! |---|---|
//! | `RUNTIME` | the runtime under test, a name or a path; a test that fails on runc is wrong, or says so with [`known!`] |
//! | `RRT_BIN` | the `rrt` to test; without it the newest one in the target directory |
//! | `BERTH_BIN` | the `berth` to test (`--features berth`); without it the newest one in the target directory |
//! | `SHIM` | the containerd shim under test; without it ours, built now |
//! | `CI` | a skip that `skips.allow` does not list fails |
//! | `RT_SKIPS` | a file that gets a line for each skip |
//! | `RT_LENT` | the ids lent to the user who runs the tests, `START:SIZE`, if he is not root (`hack/rootless`) |
//! | `RT_RUN_KNOWN` | run the tests that [`known!`] would skip, to see whether the difference is still there |
//! | `RT_EVERY_CALL` | kill and fail at every system call, not at some of them |
//! | `RT_POINTS` | at how many of its system calls an operation is killed (60) |
//! | `RT_FLAGS` | global flags for every command on a container: `--systemd-cgroup` is the whole suite with that driver |
//! | `RT_GUEST`, `RT_BUSYBOX` | ready static programs, for a machine without cargo or with busybox elsewhere |

#[cfg(feature = "berth")]
pub mod berth;
mod command;
mod container;
pub mod criu;
mod host;
mod leaks;
mod older;
mod rootfs;
mod runtime;
pub mod shim;
mod skip;
pub mod wire;

pub use command::{Background, DEADLINE, Output, run, until};
pub use container::Container;
pub use host::{
    Pty, cgroup_dir, cgroup_file, cgroup_v2, console_socket, controller_is_v2, host_mounts, private_mounts,
    process_cgroup, read_until, receive,
};
pub use leaks::{assert_nothing_left, cgroups_named, leftovers};
pub use older::without_calls;
pub use runtime::{Runtime, runtime};
pub use skip::{known_difference, skipped};
