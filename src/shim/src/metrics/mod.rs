//! `Stats`: what a container uses, in containerd's types, read from its cgroup's files.
//!
//! Not by the runtime's `events --stats`: a kubelet asks every few seconds for each container, and most of what containerd's types
//! hold is not in that document.

mod v1;
mod v2;

use crate::cgroup::Cgroup;
use crate::proto::{Any, cgroup1, cgroup2};
use std::path::Path;

/// The statistics of a cgroup. One that is gone has none: an empty message, as runc's shim has it.
pub fn read(cgroup: &Cgroup) -> Any {
    match cgroup {
        Cgroup::V1(_) => Any::of(cgroup1::METRICS, &v1::read(cgroup)),
        Cgroup::V2(dir) => Any::of(cgroup2::METRICS, &v2::read(dir)),
    }
}

/// The page sizes of which `hugetlb.SIZE.…` files exist: `2MB`, `1GB`.
fn page_sizes(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut sizes: Vec<String> = names
        .filter_map(|name| {
            let size = name.strip_prefix("hugetlb.")?.split('.').next()?;
            Some(size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes.dedup();
    sizes
}

/// `MAJOR:MINOR`
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A line of `rdma.current` or `rdma.max`: `NAME hca_handle=N hca_object=max`.
fn rdma(line: &str) -> Option<(String, u32, u32)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let mut value = |key: &str| {
        let text = words.next()?.strip_prefix(key)?;
        if text == "max" { Some(u32::MAX) } else { text.parse().ok() }
    };
    Some((name, value("hca_handle=")?, value("hca_object=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_lines() {
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("Total"), None);
        assert_eq!(rdma("mlx4_0 hca_handle=2 hca_object=max"), Some(("mlx4_0".into(), 2, u32::MAX)));
        assert_eq!(rdma(""), None);
    }
}
