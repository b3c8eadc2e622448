use super::*;
use serde_json::json;

const BOTH: Modules = Modules { apparmor: true, selinux: true, by_syscall: true };
const NONE: Modules = Modules { apparmor: false, selinux: false, by_syscall: true };

fn process(extra: serde_json::Value) -> Process {
    let mut json = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["true"] });
    for (key, value) in extra.as_object().unwrap() {
        json[key] = value.clone();
    }
    serde_json::from_value(json).unwrap()
}

fn labels(extra: serde_json::Value, modules: Modules) -> Result<Labels> {
    Labels::plan(&process(extra), "process", modules)
}

fn error(extra: serde_json::Value, modules: Modules) -> String {
    labels(extra, modules).unwrap_err().to_string()
}

#[test]
fn a_label_without_its_module_is_an_error() {
    let e = error(json!({ "apparmorProfile": "x" }), NONE);
    assert!(e.starts_with("process.apparmorProfile: apparmor: config provided but apparmor not supported"), "{e}");
    let e = error(json!({ "selinuxLabel": "a:b:c:s0" }), NONE);
    assert!(
        e.starts_with("process.selinuxLabel: selinux label is specified in config, but selinux is disabled"),
        "{e}"
    );
    // One module is not the other.
    assert!(labels(json!({ "selinuxLabel": "a:b:c" }), Modules { selinux: false, ..BOTH }).is_err());
    assert!(labels(json!({ "apparmorProfile": "x" }), Modules { apparmor: false, ..BOTH }).is_err());
}

#[test]
fn no_label_needs_no_module() {
    for extra in
        [json!({}), json!({ "apparmorProfile": "", "selinuxLabel": "" }), json!({ "apparmorProfile": "unconfined" })]
    {
        assert!(labels(extra.clone(), NONE).unwrap().is_empty(), "{extra}");
    }
    // With AppArmor it is a change: the runtime may be confined itself.
    assert_eq!(
        labels(json!({ "apparmorProfile": "unconfined" }), BOTH).unwrap().apparmor.as_deref(),
        Some("unconfined")
    );
}

#[test]
fn text_that_the_kernel_would_read_otherwise_is_refused() {
    for bad in ["a\nb", "a\0", " a", "a\n", &"x".repeat(4001)] {
        assert!(error(json!({ "apparmorProfile": bad }), BOTH).starts_with("process.apparmorProfile: "), "{bad:?}");
        assert!(error(json!({ "selinuxLabel": bad }), BOTH).starts_with("process.selinuxLabel: "), "{bad:?}");
    }
    labels(json!({ "apparmorProfile": "/usr/bin/a b//child" }), BOTH).unwrap();
}

#[test]
fn a_confined_process_that_may_gain_nothing_stacks() {
    assert_eq!(change("p", false), "exec p");
    assert_eq!(change("p", true), "stack p");
}

#[test]
fn refusals_are_in_words_that_podman_reads() {
    let e = |module, errno| refused(rrt_sys::SysError::new("write", errno), Attribute::Exec, module, "x").to_string();
    for text in [e(Module::Apparmor, errno::ENOENT), e(Module::Selinux, errno::EINVAL)] {
        assert!(text.contains("\"x\"") && text.ends_with("/exec`"), "{text}");
        assert!(!text.contains("No such file") && !text.contains("ermission"), "{text}");
    }
    // A policy's refusal is a matter of permission, for podman too.
    assert!(
        e(Module::Apparmor, errno::EACCES).contains("`/proc/thread-self/attr/apparmor/exec`, \"x\": write: Permission")
    );
}

fn mount_label(label: &str, kind: Option<&str>, modules: Modules) -> Result<Option<MountLabel>> {
    let linux: Linux = serde_json::from_value(json!({ "mountLabel": label })).unwrap();
    let annotations = kind.map(|k| HashMap::from([(MOUNT_CONTEXT_TYPE.to_string(), k.to_string())]));
    MountLabel::plan(&linux, annotations.as_ref(), modules)
}

#[test]
fn mount_labels_are_planned() {
    let option = |kind| mount_label("a:b:c:s0:c1,c2", kind, BOTH).unwrap().unwrap().option();
    assert_eq!(option(None), "context=a:b:c:s0:c1,c2");
    for kind in CONTEXTS {
        assert_eq!(option(Some(kind)), format!("{kind}=a:b:c:s0:c1,c2"));
    }
    assert_eq!(mount_label("", Some("nonsense"), NONE).unwrap(), None);
    let e = mount_label("a:b:c", Some("seclabel"), BOTH).unwrap_err().to_string();
    assert!(e.starts_with("annotations[\"run.oci.mount_context_type\"]: \"seclabel\" is none of context,"), "{e}");
    let e = mount_label("a:b:c", None, NONE).unwrap_err().to_string();
    assert!(e.starts_with("linux.mountLabel: selinux label is specified"), "{e}");
    for bad in ["a\"b", "a\n"] {
        assert!(mount_label(bad, None, BOTH).is_err(), "{bad:?}");
    }
}

#[test]
fn each_new_file_system_gets_the_label_but_those_of_the_policy() {
    let plan = |mount| MountPlan::new(&mount, 0, Path::new("/b"), &Default::default());
    let mount = |json| plan(serde_json::from_value(json).unwrap()).unwrap();
    let new = |fstype: &str| mount(json!({ "destination": "/x", "type": fstype, "options": ["mode=755"] }));
    let bind = mount(json!({ "destination": "/x", "source": "/y", "options": ["bind"] }));
    let mut mounts = [new("tmpfs"), new("devpts"), new("mqueue"), new("proc"), new("sysfs"), new("cgroup"), bind];
    mount_label("a:b:c:s0:c1,c2", None, BOTH).unwrap().unwrap().apply_to(&mut mounts);
    let with: Vec<_> = mounts.iter().map(|m| m.options.data.iter().any(|o| o == "context=a:b:c:s0:c1,c2")).collect();
    assert_eq!(with, [true, true, false, false, false, false, false]);
    let roots: Vec<_> = mounts.iter().map(|m| m.options.root_label.is_some()).collect();
    assert_eq!(roots, [false, false, true, false, false, false, false]);
}

#[test]
fn contexts_are_quoted_for_lists_only() {
    assert_eq!(quoted("context=a:s0:c1,c2"), "context=\"a:s0:c1,c2\"");
    assert_eq!(quoted("rootcontext=\"a\""), "rootcontext=\"a\"");
    assert_eq!(unquoted("context=\"a:s0:c1,c2\""), "context=a:s0:c1,c2");
    for other in ["mode=755", "lowerdir=\"a\"", "ro"] {
        assert_eq!((quoted(other), unquoted(other)), (other.to_string(), other.to_string()));
    }
}

/// Where no module gives labels the kernel has the files all the same, and refuses what is written to them.
#[test]
fn attributes_are_files_of_a_procfs_of_our_own() {
    let Ok(proc) = private_proc::processes() else { return };
    for (attribute, module) in [(Attribute::Exec, Module::Apparmor), (Attribute::KeyCreate, Module::Selinux)] {
        let fd = open_attribute(&proc, attribute, module, OFlags::WRONLY).unwrap();
        assert_eq!(path::fs_magic(&fd).unwrap(), 0x9fa0);
        // Not the one that everybody sees.
        let (file, older) = attribute_files(attribute, module);
        let visible = [Some(file), older]
            .into_iter()
            .flatten()
            .find_map(|f| path::open(&Path::new("/proc").join(f), OFlags::PATH).ok());
        assert_ne!(path::fstat(visible.unwrap()).unwrap().st_dev, path::fstat(&fd).unwrap().st_dev);
    }
    assert!(private_proc::open(&proc, Path::new("sys/kernel/hostname"), OFlags::RDONLY).unwrap_err().is(errno::ENOENT));
}

#[test]
fn a_refused_context_is_told_from_other_bad_options() {
    let options: Vec<String> = ["mode=755", "context=\"a:b:c:s0:c1,c2\""].map(String::from).into();
    let e = |call: &str, errno| explain_context(&options, &rrt_sys::SysError::new(call, errno)).unwrap_or("none");
    assert!(e("fsconfig(\"tmpfs\", \"context=a:b:c:s0:c1,c2\")", errno::EINVAL).contains("not a context"));
    assert!(e("fsconfig(\"tmpfs\", FSCONFIG_CMD_CREATE)", errno::EINVAL).contains("this kind of context"));
    assert_eq!(e("fsconfig(\"tmpfs\", FSCONFIG_CMD_CREATE)", errno::EPERM), "none");
    assert!(explain_context(&options[..1], &rrt_sys::SysError::new("fsconfig", errno::EINVAL)).is_none());
}

#[test]
fn a_label_may_be_why_a_program_was_not_executed() {
    assert_eq!(Labels::default().why_denied(), "");
    let both = labels(json!({ "apparmorProfile": "p", "selinuxLabel": "a:b:c" }), BOTH).unwrap().why_denied();
    assert!(
        both.contains("process.selinuxLabel \"a:b:c\"") && both.contains("process.apparmorProfile \"p\""),
        "{both}"
    );
}

#[test]
fn a_mount_label_comes_back_from_its_option() {
    let label = MountLabel { kind: "rootcontext", label: "a:b:c:s0:c1,c2".into() };
    assert_eq!(MountLabel::of_option(&label.option()), Some(label));
    assert_eq!(MountLabel::of_option("size=64k"), None);
}
