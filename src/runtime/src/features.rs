//! The document of `rrt features` (runtime-spec `features.md`): what this build does, not what this host has.
//!
//! Engines decide by it: containerd and Docker look for `rro` in `mountOptions`, Kubernetes for the idmap extension. A
//! value is therefore true only once a test shows it, and what another version adds is `false` here, never left out:
//! absence means "unknown" to a reader.

use serde_json::{Value, json};

/// The hooks of `config.md`, in the order they run.
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// Builds the document; `version` and `commit` are those of the binary.
pub fn document(version: &str, commit: &str) -> Value {
    json!({
        // The oldest and the newest `ociVersion` accepted in a config.json.
        "ociVersionMin": "1.0.0",
        "ociVersionMax": rrt_oci::VERSION,
        "hooks": HOOKS,
        "mountOptions": crate::mounts::options::names(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": rrt_sys::creds::capability_names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": rrt_seccomp::ACTIONS,
                "operators": rrt_seccomp::OPERATORS,
                "archs": rrt_seccomp::architectures(),
                "knownFlags": rrt_seccomp::FLAGS,
                "supportedFlags": rrt_seccomp::FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "memoryPolicy": { "modes": crate::memory_policy::modes(), "flags": crate::memory_policy::flags() },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "io.rrt.version": version,
            "io.rrt.commit": commit,
            "io.rrt.annotations": crate::annotations::KNOWN.join(","),
            // Podman and CRI-O ask for it by runc's name.
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        // Annotations of a config.json that change how the runtime works; a dot at the end stands for all that begin so.
        "potentiallyUnsafeConfigAnnotations": [
            crate::annotations::PREFIX,
            crate::annotations::CRUN,
            crate::criu::options::CONFIG_ANNOTATION,
            rrt_cgroups::PROPERTY_ANNOTATION,
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_shape_of_the_specification() {
        let read: rrt_oci::Features = serde_json::from_value(document("1.2.3", "abc")).unwrap();
        assert_eq!(read.oci_version_max(), "1.3.0");
        assert_eq!(read.annotations().as_ref().unwrap()["io.rrt.commit"], "abc");
        let linux = read.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
        assert_eq!(linux.cgroup().as_ref().unwrap().v1(), &Some(true));
        assert!(linux.capabilities().as_ref().unwrap().iter().any(|c| c == "CAP_SYS_ADMIN"));
    }

    #[test]
    fn recursive_read_only_mounts_are_offered() {
        let value = document("", "");
        let options = value["mountOptions"].as_array().unwrap();
        assert!(options.iter().any(|o| o == "rro"), "containerd and Docker look for it");
        assert!(options.iter().any(|o| o == "ridmap"));
        // Kubernetes looks for it before it makes pods with user namespaces.
        assert_eq!(value["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    }

    #[test]
    fn seccomp_is_told_in_the_specifications_words() {
        let value = document("", "");
        let seccomp = &value["linux"]["seccomp"];
        let count = |key: &str| seccomp[key].as_array().map(Vec::len);
        assert_eq!(
            ["actions", "operators", "archs", "knownFlags", "supportedFlags"].map(count),
            [9, 7, 23, 4, 4].map(Some)
        );
        // Each of them is one that a profile may have.
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": seccomp["archs"], "flags": seccomp["knownFlags"],
        });
        serde_json::from_value::<rrt_oci::LinuxSeccomp>(profile).unwrap();
    }

    #[test]
    fn the_rest_of_the_specification_is_there() {
        let value = document("", "");
        for key in ["seccomp", "apparmor", "selinux", "intelRdt", "netDevices"] {
            assert_eq!(value["linux"][key]["enabled"], true, "{key}");
        }
        assert_eq!(value["linux"]["memoryPolicy"]["modes"].as_array().map(Vec::len), Some(7));
        assert_eq!(value["linux"]["intelRdt"]["monitoring"], true);
    }
}
