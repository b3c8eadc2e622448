//! `linux.intelRdt` on a machine without resctrl: an error that says so. What is done with resctrl, the runtime's own tests show on a
//! directory in its place.

use runtime_tests::{Container, known, skip};
use serde_json::json;

fn resctrl() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.contains("resctrl"))
}

#[test]
fn without_resctrl_it_is_an_error() {
    known!("runc", "1.2", "Intel RDT is told to be disabled, in other words");
    if resctrl() {
        skip!("this kernel has resctrl");
    }
    let c = Container::new().with("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=f" }));
    c.create(&[]).fails(1, &["linux.intelRdt", "resctrl", "not mounted"]);
    c.assert_gone();
}

#[test]
fn bad_input_is_named() {
    known!("runc", "1.2", "nothing of it is checked without resctrl");
    for (rdt, property) in [
        (json!({ "closID": "../x" }), "linux.intelRdt.closID"),
        (json!({ "memBwSchema": "50" }), "linux.intelRdt.memBwSchema"),
        (json!({ "schemata": ["L3:0=f\nMB:0=10"] }), "linux.intelRdt.schemata[0]"),
    ] {
        let c = Container::new().with("/linux/intelRdt", rdt);
        c.create(&[]).fails(1, &[property]);
    }
}

#[test]
fn update_of_a_container_without_it() {
    let c = Container::new().idle().up();
    c.call("update", &["--l3-cache-schema", "L3:0=f"], &[]).fails(1, &["--l3-cache-schema", "linux.intelRdt"]);
    c.call("update", &["--mem-bw-schema", "MB:0=50"], &[]).fails(1, &["--mem-bw-schema", "linux.intelRdt"]);
}
