//! Black-box tests over an OCI runtime binary: the harness.
//!
//! A test makes a [`Container`], changes its `config`, calls the runtime, and looks at what the [`guest`](../guest)
//! inside reports. When the `Container` goes out of scope it is deleted with force, and the test fails if a cgroup, a
//! mount, a file or a process of it is left.
//!
//! `RUNTIME` chooses the binary (a name or a path). Without it the tests take `RRT_BIN`, or the newest `rrt` of the
//! target directory. A test that fails on runc is wrong, or names the difference with [`known!`].

mod command;
mod container;
mod host;
mod leaks;
mod rootfs;
mod runtime;
mod skip;

pub use command::{Background, DEADLINE, Output, run, until};
pub use container::Container;
pub use host::{
    Pty, cgroup_dir, cgroup_file, cgroup_v2, console_socket, host_mounts, private_mounts, process_cgroup, read_until,
};
pub use leaks::{assert_nothing_left, cgroups_named, leftovers};
pub use runtime::{Runtime, runtime};
pub use skip::{known_difference, skipped};
