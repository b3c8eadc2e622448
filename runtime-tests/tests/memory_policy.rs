//! `linux.memoryPolicy`, as get_mempolicy(2) tells it inside.

use runtime_tests::{Container, known, skip};
use serde_json::{Value, json};

/// A kernel without NUMA has no such call; the default policy is what every process has.
fn numa() -> bool {
    std::path::Path::new("/sys/devices/system/node/node0").is_dir()
}

fn with_policy(policy: Value) -> Container {
    Container::new().with("/linux/memoryPolicy", policy)
}

#[test]
fn modes_and_flags() {
    known!("runc", "1.4", "memoryPolicy is runtime-spec 1.3");
    if !numa() {
        skip!("this kernel has no NUMA");
    }
    for (policy, mode, nodes) in [
        (json!({ "mode": "MPOL_DEFAULT" }), 0, vec![]),
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), 2, vec![0]),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), 3, vec![0]),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), 1, vec![0]),
        (json!({ "mode": "MPOL_PREFERRED_MANY", "nodes": "0-0" }), 5, vec![0]),
        (json!({ "mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0" }), 6, vec![0]),
        (json!({ "mode": "MPOL_LOCAL" }), 4, vec![]),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), 2 | 1 << 15, vec![0]),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }), 3 | 1 << 14, vec![0]),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }), 2 | 1 << 13, vec![0]),
    ] {
        let report = with_policy(policy.clone()).report();
        assert_eq!(report["memory_policy"], json!({ "mode": mode, "nodes": nodes }), "{policy}");
    }
}

#[test]
fn exec_has_it_too() {
    known!("runc", "1.4", "memoryPolicy is runtime-spec 1.3");
    if !numa() {
        skip!("this kernel has no NUMA");
    }
    let c = with_policy(json!({ "mode": "MPOL_BIND", "nodes": "0" })).idle().up();
    assert_eq!(c.exec_report(&[])["memory_policy"], json!({ "mode": 2, "nodes": [0] }));
    let none = Container::new().idle().up();
    assert_eq!(none.exec_report(&[])["memory_policy"], json!({ "mode": 0, "nodes": [] }));
}

#[test]
fn bad_policies_are_named() {
    known!("runc", "1.4", "memoryPolicy is runtime-spec 1.3");
    for (policy, needles) in [
        (json!({ "mode": "MPOL_BIND" }), &["linux.memoryPolicy.nodes", "MPOL_BIND needs"][..]),
        (json!({ "mode": "MPOL_LOCAL", "nodes": "0" }), &["linux.memoryPolicy.nodes", "MPOL_LOCAL mode requires 0"]),
        (json!({ "mode": "MPOL_BIND", "nodes": "0,x" }), &["linux.memoryPolicy.nodes", "0,x"]),
        (json!({ "mode": "MPOL_NEAR", "nodes": "0" }), &["linux.memoryPolicy.mode", "MPOL_NEAR"]),
        (json!({ "nodes": "0" }), &["linux.memoryPolicy", "mode"]),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["X"] }), &["linux.memoryPolicy.flags", "X"]),
    ] {
        let c = with_policy(policy);
        c.create(&[]).fails(1, needles);
        c.assert_gone();
    }
    if !numa() {
        skip!("this kernel has no NUMA");
    }
    // Nodes that are not there are known to the kernel alone.
    let c = with_policy(json!({ "mode": "MPOL_BIND", "nodes": "1000" }));
    c.create(&[]).fails(1, &["linux.memoryPolicy", "set_mempolicy", "EINVAL", "cpu.mems"]);
    c.assert_gone();
}
