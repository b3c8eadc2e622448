//! What each property of `linux.resources` becomes on v1 and on v2.

use super::*;

const V1: [&str; 9] = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio"];
const V2: [&str; 7] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma"];

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// The writes for one hierarchy with these controllers, as `file=value`; `~` in front of what a new cgroup does not
/// need, `?` of what may be missing.
fn on(version: Version, controllers: &[&str], stage: Stage, json: &str) -> Result<Vec<String>, String> {
    let controllers = owned(controllers);
    let targets = [Target { version, controllers: &controllers }];
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let all = settings(&resources, &targets, stage).map_err(|e| e.to_string())?;
    let show = |w: &Write| {
        let mark = format!("{}{}", if w.default { "~" } else { "" }, if w.optional { "?" } else { "" });
        let other = w.otherwise.as_ref().map(|(f, v)| format!(" or {f}={v}")).unwrap_or_default();
        format!("{mark}{}={}{other}", w.file, w.value)
    };
    Ok(all.iter().flat_map(|(_, s)| s).map(show).collect())
}

fn v1(json: &str) -> Vec<String> {
    on(Version::V1, &V1, Stage::Create, json).unwrap()
}

fn v2(json: &str) -> Vec<String> {
    on(Version::V2, &V2, Stage::Create, json).unwrap()
}

fn refused(version: Version, json: &str) -> String {
    let controllers: &[&str] = if version == Version::V1 { &V1 } else { &V2 };
    on(version, controllers, Stage::Create, json).unwrap_err()
}

const NONE: [&str; 0] = [];

#[test]
fn nothing_is_written_for_what_is_not_set() {
    let zeros = r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":5,"kernelTCP":5,"useHierarchy":true},
        "cpu":{"shares":0,"quota":0,"period":0,"realtimePeriod":0,"realtimeRuntime":0,"cpus":"","mems":""},
        "blockIO":{"weight":0,"leafWeight":0},"network":{"classID":0,"priorities":[]},"hugepageLimits":[]}"#;
    assert_eq!(v1(zeros), NONE);
    assert_eq!(v2(zeros), NONE);
    assert_eq!(v2("{}"), NONE);
}

#[test]
fn pids() {
    for (limit, value) in [(0, "pids.max=1"), (7, "pids.max=7"), (-1, "~pids.max=max"), (-5, "~pids.max=max")] {
        let json = format!(r#"{{"pids":{{"limit":{limit}}}}}"#);
        assert_eq!(v1(&json), [value]);
        assert_eq!(v2(&json), [value]);
    }
}

#[test]
fn memory_on_v1() {
    assert_eq!(
        v1(r#"{"memory":{"limit":100,"swap":150,"reservation":50,"swappiness":60,"disableOOMKiller":true}}"#),
        [
            "memory.limit_in_bytes=100",
            "memory.memsw.limit_in_bytes=150",
            "memory.soft_limit_in_bytes=50",
            "memory.oom_control=1",
            "memory.swappiness=60"
        ]
    );
    assert_eq!(v1(r#"{"memory":{"limit":-1}}"#), ["~memory.limit_in_bytes=-1", "~?memory.memsw.limit_in_bytes=-1"]);
    assert_eq!(v1(r#"{"memory":{"disableOOMKiller":false}}"#), NONE);
    let update = on(Version::V1, &V1, Stage::Update, r#"{"memory":{"swap":150,"disableOOMKiller":false}}"#).unwrap();
    assert_eq!(update, ["memory.memsw.limit_in_bytes=150", "memory.oom_control=0"]);
}

#[test]
fn memory_on_v2() {
    for (json, expected) in [
        (r#"{"limit":100}"#, &["memory.max=100"][..]),
        (r#"{"limit":100,"swap":150}"#, &["memory.swap.max=50", "memory.max=100"]),
        (r#"{"limit":100,"swap":100}"#, &["?memory.swap.max=0", "memory.max=100"]),
        (r#"{"limit":100,"swap":-1}"#, &["~?memory.swap.max=max", "memory.max=100"]),
        (r#"{"limit":-1}"#, &["~?memory.swap.max=max", "~memory.max=max"]),
        (r#"{"limit":-1,"swap":70}"#, &["memory.swap.max=70", "~memory.max=max"]),
        (r#"{"reservation":50}"#, &["memory.low=50"]),
        (r#"{"swappiness":60,"disableOOMKiller":true}"#, &[]),
    ] {
        assert_eq!(v2(&format!(r#"{{"memory":{json}}}"#)), expected, "{json}");
    }
}

#[test]
fn memory_that_no_kernel_takes() {
    for version in [Version::V1, Version::V2] {
        for (json, start) in [
            (r#"{"memory":{"swap":5}}"#, "linux.resources.memory.swap: unable to set swap limit without"),
            (r#"{"memory":{"limit":9,"swap":5}}"#, "linux.resources.memory.swap: memory+swap limit should be"),
            (r#"{"memory":{"limit":-2}}"#, "linux.resources.memory.limit: -2"),
            (r#"{"memory":{"reservation":-9}}"#, "linux.resources.memory.reservation: -9"),
        ] {
            let text = refused(version, json);
            assert!(text.starts_with(start), "{text}");
        }
    }
    let text = refused(Version::V1, r#"{"memory":{"swappiness":101}}"#);
    assert!(text.starts_with("linux.resources.memory.swappiness: 101"), "{text}");
}

#[test]
fn cpu_on_v1() {
    assert_eq!(
        v1(r#"{"cpu":{"shares":512,"quota":50000,"period":200000,"burst":1000,"idle":1,"cpus":"0-1","mems":"0",
            "realtimePeriod":1000000,"realtimeRuntime":950000}}"#),
        [
            "cpu.shares=512",
            "cpu.idle=1",
            "cpu.cfs_period_us=200000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpu.rt_period_us=1000000",
            "cpu.rt_runtime_us=950000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(v1(r#"{"cpu":{"quota":-7,"shares":1024}}"#), ["~cpu.shares=1024", "~cpu.cfs_quota_us=-1"]);
    assert!(refused(Version::V1, r#"{"cpu":{"shares":1}}"#).contains("minimum allowed cpu-shares is 2"));
    assert!(refused(Version::V1, r#"{"cpu":{"shares":262145}}"#).contains("maximum allowed cpu-shares is 262144"));
    assert!(refused(Version::V2, r#"{"cpu":{"idle":2}}"#).starts_with("linux.resources.cpu.idle: 2"));
}

#[test]
fn cpu_on_v2() {
    assert_eq!(
        v2(r#"{"cpu":{"shares":2048,"quota":50000,"burst":1000,"cpus":"0","realtimePeriod":1000000}}"#),
        ["cpu.weight=174", "cpu.max=50000 100000", "cpu.max.burst=1000", "cpuset.cpus=0"]
    );
    assert_eq!(v2(r#"{"cpu":{"quota":-1,"period":100000,"burst":0}}"#), ["~cpu.max=max 100000", "~?cpu.max.burst=0"]);
    assert_eq!(v2(r#"{"cpu":{"period":50000}}"#), ["cpu.max=max 50000"]);
    assert_eq!(v2(r#"{"cpu":{"shares":1024,"idle":0}}"#), ["~cpu.weight=100", "~?cpu.idle=0"]);
}

const BLOCK_IO: &str = r#"{"blockIO":{"weight":500,"leafWeight":300,
    "weightDevice":[{"major":8,"minor":0,"weight":10,"leafWeight":20}],
    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;

#[test]
fn block_io_on_both() {
    assert_eq!(
        v1(BLOCK_IO),
        [
            "blkio.weight=500 or blkio.bfq.weight=500",
            "blkio.leaf_weight=300",
            "blkio.weight_device=8:0 10 or blkio.bfq.weight_device=8:0 10",
            "blkio.leaf_weight_device=8:0 20",
            "blkio.throttle.read_bps_device=8:0 1",
            "blkio.throttle.write_bps_device=8:0 2",
            "blkio.throttle.read_iops_device=8:0 3",
            "blkio.throttle.write_iops_device=8:16 0"
        ]
    );
    assert_eq!(
        v2(BLOCK_IO),
        [
            "io.bfq.weight=500 or io.weight=4950",
            "io.bfq.weight=8:0 10 or io.weight=8:0 1",
            "io.max=8:0 rbps=1",
            "io.max=8:0 wbps=2",
            "io.max=8:0 riops=3",
            "io.max=8:16 wiops=max"
        ]
    );
    let text = refused(Version::V2, r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":5}]}}"#);
    assert!(text.starts_with("linux.resources.blockIO.weightDevice[0].weight: 5"), "{text}");
}

#[test]
fn huge_pages_rdma_and_network() {
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
        "rdma":{"mlx":{"hcaHandles":3,"hcaObjects":4},"a":{"hcaObjects":1}},
        "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#;
    let rdma = ["rdma.max=a hca_object=1", "rdma.max=mlx hca_handle=3 hca_object=4"];
    let mut expected = vec!["hugetlb.2MB.limit_in_bytes=4194304", "?hugetlb.2MB.rsvd.limit_in_bytes=4194304"];
    expected.extend(rdma);
    expected.extend(["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
    assert_eq!(v1(json), expected);
    let mut expected = vec!["hugetlb.2MB.max=4194304", "?hugetlb.2MB.rsvd.max=4194304"];
    expected.extend(rdma);
    assert_eq!(v2(json), expected);
    let text = refused(Version::V1, r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#);
    assert!(text.starts_with("linux.resources.hugepageLimits[0].pageSize: "), "{text}");
}

#[test]
fn a_limit_without_controller_names_both() {
    for (version, json, property, controller) in [
        (Version::V1, r#"{"memory":{"limit":5}}"#, "linux.resources.memory.limit", "`memory`"),
        (Version::V1, BLOCK_IO, "linux.resources.blockIO.weight", "`blkio`"),
        (Version::V2, BLOCK_IO, "linux.resources.blockIO.weight", "`io`"),
        (Version::V1, r#"{"network":{"classID":5}}"#, "linux.resources.network.classID", "`net_cls`"),
        (
            Version::V2,
            r#"{"unified":{"misc.max":"a 5"}}"#,
            "linux.resources.unified[\"misc.max\"]",
            "`misc (cgroup v2)`",
        ),
    ] {
        let text = on(version, &["devices"], Stage::Create, json).unwrap_err();
        assert!(text.starts_with(property) && text.contains(controller), "{text}");
    }
    // What is so anyway needs no controller.
    assert_eq!(on(Version::V2, &[], Stage::Create, r#"{"pids":{"limit":-1},"cpu":{"shares":1024}}"#).unwrap(), NONE);
    assert_eq!(v2(r#"{"network":{"classID":5}}"#), NONE);
}

#[test]
fn unified_files_come_last_line_by_line() {
    let json = r#"{"unified":{"memory.high":"70","io.max":"8:0 rbps=1\n8:16 rbps=2","cgroup.max.depth":"3"},
        "pids":{"limit":5}}"#;
    assert_eq!(
        v2(json),
        ["pids.max=5", "cgroup.max.depth=3", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=70"]
    );
    let text = refused(Version::V1, json);
    assert!(
        text.starts_with("linux.resources.unified: invalid configuration: this machine has cgroup v1 only"),
        "{text}"
    );
    for name in ["../memory.max", "tasks"] {
        let text = refused(Version::V2, &format!(r#"{{"unified":{{"{name}":"1"}}}}"#));
        assert!(text.contains("must be the name of a file"), "{text}");
    }
    // With the second a pid of the host's, 1 for example, would be moved into the container's cgroup and die with it.
    for name in ["cgroup.freeze", "cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.type"] {
        let text = refused(Version::V2, &format!(r#"{{"unified":{{"{name}":"1"}}}}"#));
        assert!(text.contains("is no limit"), "{text}");
    }
    assert_eq!(
        v2(r#"{"unified":{"cpuset.cpus":"","io.max":"8:0 rbps=1\n"}}"#),
        ["cpuset.cpus=\n", "io.max=8:0 rbps=1"]
    );
}

#[test]
fn a_hybrid_machine_uses_v1_first_and_the_unified_hierarchy_else() {
    let (v1, v2) = (owned(&["memory"]), owned(&["memory", "hugetlb"]));
    let targets =
        [Target { version: Version::V1, controllers: &v1 }, Target { version: Version::V2, controllers: &v2 }];
    let json = r#"{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"unified":{"memory.low":"1"}}"#;
    let all = settings(&serde_json::from_str(json).unwrap(), &targets, Stage::Create).unwrap();
    let seen: Vec<(usize, &str)> = all.iter().map(|(i, s)| (*i, s[0].file.as_ref())).collect();
    assert_eq!(seen, [(0, "memory.limit_in_bytes"), (1, "hugetlb.2MB.max"), (1, "memory.low")]);
}
