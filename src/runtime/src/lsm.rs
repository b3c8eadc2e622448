//! AppArmor and SELinux: `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`.
//!
//! A process' label is set "on exec": the kernel keeps it for the thread and gives it to the program. From Linux 6.8 that is a
//! system call without any file; before, a write to `/proc/thread-self/attr`, which goes through a procfs of the runtime's own
//! ([`crate::private_proc`]). What runs between is the runtime's own code, and hooks of the container, which get the label
//! with their own execve.

use crate::error::{Doing, Error, Result, config};
use crate::mounts::{MountKind, MountPlan};
use crate::private_proc;
use rrt_oci::{Linux, Process, Spec};
use rrt_sys::lsm::{self, Attribute, Module};
use rrt_sys::path::{self, Root};
use rrt_sys::{OFlags, errno};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Which modules this kernel has switched on, and how they are spoken to. Nothing of it is read unless a label is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// AppArmor
    pub apparmor: bool,
    /// SELinux
    pub selinux: bool,
    /// Attributes are set by lsm_set_self_attr(2) (Linux 6.8), not through procfs.
    pub by_syscall: bool,
}

impl Modules {
    /// Asks the kernel, if `asked`. In the runtime's own mount namespace: a container's /sys says what its image likes.
    pub fn read(asked: bool) -> Modules {
        /// `SELINUX_MAGIC`
        const SELINUXFS: u64 = 0xf97c_ff8c;
        if !asked {
            return Modules::default();
        }
        match lsm::modules() {
            Ok(ids) => Modules {
                apparmor: lsm::is_active(&ids, Module::Apparmor),
                selinux: lsm::is_active(&ids, Module::Selinux),
                by_syscall: true,
            },
            Err(_) => Modules {
                apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with(b"Y")),
                selinux: path::open_dir(Path::new("/sys/fs/selinux"))
                    .is_ok_and(|fs| path::fs_magic(fs).is_ok_and(|magic| magic == SELINUXFS)),
                by_syscall: false,
            },
        }
    }
}

/// Whether a config.json asks for any label.
pub fn is_asked_for(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    spec.process().as_ref().is_some_and(is_asked_of) || linux.is_some_and(|l| given(l.mount_label()).is_some())
}

/// Whether a process does.
pub fn is_asked_of(process: &Process) -> bool {
    given(process.apparmor_profile()).or(given(process.selinux_label())).is_some()
}

/// An empty text is none, as in runc.
fn given(text: &Option<String>) -> Option<&String> {
    text.as_ref().filter(|t| !t.is_empty())
}

/// The labels of a process, and how they will be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Labels {
    /// `apparmorProfile`
    pub apparmor: Option<String>,
    /// `selinuxLabel`
    pub selinux: Option<String>,
    /// By lsm_set_self_attr(2); otherwise through procfs.
    pub by_syscall: bool,
}

/// The longest label, in bytes: with what stands before it, it has to fit a page.
const LONGEST: usize = 4000;
/// AppArmor's name for no profile.
const UNCONFINED: &str = "unconfined";

impl Labels {
    /// Settles the labels of `process`, which errors call `at`.
    ///
    /// # Errors
    /// A label for a module that this kernel does not have: the caller believes that the process is confined. (runc's words, which
    /// people search for.)
    pub fn plan(process: &Process, at: &str, modules: Modules) -> Result<Labels> {
        let mut apparmor = given(process.apparmor_profile()).cloned();
        let selinux = given(process.selinux_label()).cloned();
        check(apparmor.as_deref(), &format!("{at}.apparmorProfile"))?;
        check(selinux.as_deref(), &format!("{at}.selinuxLabel"))?;
        if !modules.apparmor {
            // Without AppArmor everything is.
            apparmor = apparmor.filter(|p| p != UNCONFINED);
            if let Some(profile) = apparmor {
                let problem =
                    "apparmor: config provided but apparmor not supported: AppArmor is not enabled in this kernel";
                return Err(config(
                    format!("{at}.apparmorProfile"),
                    format!("{problem}; remove the profile {profile:?}, or boot with apparmor=1"),
                ));
            }
        }
        if let (Some(label), false) = (&selinux, modules.selinux) {
            let problem =
                "selinux label is specified in config, but selinux is disabled or not supported by this kernel";
            return Err(config(format!("{at}.selinuxLabel"), format!("{problem}; remove the label {label:?}")));
        }
        Ok(Labels { apparmor, selinux, by_syscall: modules.by_syscall })
    }

    /// What else than the file may have been the reason why a program was not executed: the policy decides about the step from the
    /// runtime's label to this one, and with no_new_privs about that as well (`nnp_transition`).
    pub fn why_denied(&self) -> String {
        let reason = |(property, label): (&str, &Option<String>)| {
            label
                .as_ref()
                .map(|l| format!(", or the policy does not grant {property} {l:?} from here (see the audit log)"))
        };
        let labels = [("process.selinuxLabel", &self.selinux), ("process.apparmorProfile", &self.apparmor)];
        labels.into_iter().filter_map(reason).collect()
    }

    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }
}

fn check(label: Option<&str>, property: &str) -> Result<()> {
    match label {
        Some(l) if l.len() > LONGEST => Err(config(property, format!("is longer than {LONGEST} bytes"))),
        // The kernel cuts white space off the ends, and reads a line.
        Some(l) if l.contains(['\0', '\n']) || l.trim() != l => {
            Err(config(property, format!("{l:?} has a NUL byte, a line break or white space around it")))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.by_syscall { "by lsm_set_self_attr" } else { "through a procfs of our own" };
        for (what, label) in [("AppArmor profile", &self.apparmor), ("SELinux label", &self.selinux)] {
            if let Some(label) = label {
                writeln!(f, "  {what} {label}, on exec, {how}")?;
            }
        }
        Ok(())
    }
}

/// Sets a process' labels, in that process.
pub struct Writer<'a> {
    labels: &'a Labels,
    /// Absent when nothing is written to it.
    proc: Option<Root>,
}

impl Writer<'_> {
    /// Opens what is needed; nothing, when there is no label.
    pub fn open(labels: &Labels) -> Result<Writer<'_>> {
        let needed = !labels.is_empty() && !labels.by_syscall;
        Ok(Writer { labels, proc: if needed { Some(private_proc::processes()?) } else { None } })
    }

    /// Has the keys that `make` makes labelled as the process will be: otherwise it could not use its own session keyring.
    pub fn label_keys(&self, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(label) = &self.labels.selinux else { return make() };
        let set = |value: &[u8]| {
            self.set(Attribute::KeyCreate, Module::Selinux, value)
                .map_err(|e| refused(e, Attribute::KeyCreate, Module::Selinux, label))
        };
        set(label.as_bytes())?;
        make()?;
        set(b"")
    }

    /// Has the next execve change the labels. While the process is still privileged: where unprivileged processes are restricted
    /// AppArmor stacks their profile on what they have (`apparmor_restrict_unprivileged_unconfined`).
    pub fn label_program(&self, no_new_privileges: bool) -> Result<()> {
        if let Some(label) = &self.labels.selinux {
            self.set(Attribute::Exec, Module::Selinux, label.as_bytes())
                .map_err(|e| refused(e, Attribute::Exec, Module::Selinux, label))?;
        }
        if let Some(profile) = &self.labels.apparmor {
            let confined = no_new_privileges && self.is_confined()?;
            let command = change(profile, confined);
            self.set(Attribute::Exec, Module::Apparmor, command.as_bytes())
                .map_err(|e| refused(e, Attribute::Exec, Module::Apparmor, profile))?;
        }
        Ok(())
    }

    /// Whether AppArmor confines the runtime itself, as it does inside another container.
    fn is_confined(&self) -> Result<bool> {
        let current = match &self.proc {
            None => lsm::get_self(Attribute::Current, Module::Apparmor),
            Some(proc) => open_attribute(proc, Attribute::Current, Module::Apparmor, OFlags::RDONLY)
                .and_then(|fd| path::read_limited(fd, LONGEST)),
        };
        let current = current.doing(|| "process.apparmorProfile: read the runtime's own profile".into())?;
        Ok(current.trim_ascii() != UNCONFINED.as_bytes())
    }

    fn set(&self, attribute: Attribute, module: Module, value: &[u8]) -> rrt_sys::Result<()> {
        match &self.proc {
            None => lsm::set_self(attribute, module, value),
            Some(proc) => {
                open_attribute(proc, attribute, module, OFlags::WRONLY).and_then(|fd| path::write_once(fd, value))
            }
        }
    }
}

/// Refuses a restored process that has the runtime's own label in place of the plan's: a criu without support for the module says nothing
/// and gives it that. (Any other is what it had when it was saved.)
///
/// # Errors
/// With the property.
pub fn check_restored(labels: &Labels, pid: i32) -> Result<()> {
    let modules = [
        (Module::Selinux, &labels.selinux, "process.selinuxLabel"),
        (Module::Apparmor, &labels.apparmor, "process.apparmorProfile"),
    ];
    for (module, label, property) in modules {
        let Some(label) = label else { continue };
        let (own, its) = (current("self", module, property)?, current(&pid.to_string(), module, property)?);
        // AppArmor adds its mode, as in "profile (enforce)".
        if its == own && its.split(" (").next() != Some(label) {
            let problem = format!(
                "criu restored the processes with the runtime's own label {own:?} instead of {label:?}, so they were ended; install a \
                 criu that is built with this module's library"
            );
            return Err(config(property, problem));
        }
    }
    Ok(())
}

/// What confines a process of the host's, as procfs has it.
fn current(pid: &str, module: Module, property: &str) -> Result<String> {
    let (file, older) = attribute_files(Attribute::Current, module);
    let place = |file: &str| file.replace("thread-self", &format!("/proc/{pid}"));
    let text = match (std::fs::read(place(&file)), older) {
        (Err(e), Some(older)) if e.kind() == std::io::ErrorKind::NotFound => std::fs::read(place(&older)),
        (read, _) => read,
    };
    let text = text.doing(|| format!("{property}: read the label of process {pid}"))?;
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).trim().into())
}

/// With no_new_privs a confined process may only add to what confines it: the new profile is stacked on the old one
/// (apparmor(7)), where a plain change would fail at execve. Whoever is not confined may change even so.
fn change(profile: &str, confined: bool) -> String {
    format!("{} {profile}", if confined { "stack" } else { "exec" })
}

/// The file of an attribute below procfs, and where kernels before 5.8 have it. AppArmor has a directory of its own, because it
/// may be active beside another module that gives labels; SELinux' place is the common one.
fn attribute_files(attribute: Attribute, module: Module) -> (String, Option<String>) {
    let name = match attribute {
        Attribute::Current => "current",
        Attribute::Exec => "exec",
        Attribute::KeyCreate => "keycreate",
    };
    let common = format!("thread-self/attr/{name}");
    match module {
        Module::Selinux => (common, None),
        Module::Apparmor => (format!("thread-self/attr/apparmor/{name}"), Some(common)),
    }
}

fn open_attribute(
    proc: &Root,
    attribute: Attribute,
    module: Module,
    flags: OFlags,
) -> rrt_sys::Result<std::os::fd::OwnedFd> {
    let (file, older) = attribute_files(attribute, module);
    match (private_proc::open(proc, Path::new(&file), flags), older) {
        (Err(e), Some(older)) if e.is(errno::ENOENT) => private_proc::open(proc, Path::new(&older), flags),
        (opened, _) => opened,
    }
}

/// The module's refusal in words. podman takes a text that ends in the attribute's name in back quotes for "the label could not be
/// set", unless it has one of the texts of errno(3) that mean a missing program or permission (contract A.8).
fn refused(e: rrt_sys::SysError, attribute: Attribute, module: Module, label: &str) -> Error {
    let (file, _) = attribute_files(attribute, module);
    let attribute = format!("write `/proc/{file}`");
    match (module, e.errno()) {
        (Module::Apparmor, errno::ENOENT) => config(
            "process.apparmorProfile",
            format!(
                "the profile {label:?} is not loaded (apparmor_parser loads one, aa-status lists them): {attribute}"
            ),
        ),
        (Module::Selinux, errno::EINVAL) => config(
            "process.selinuxLabel",
            format!("{label:?} is not a context of the loaded policy (seinfo lists its types): {attribute}"),
        ),
        (Module::Apparmor, _) => {
            Error::System { doing: format!("process.apparmorProfile: {attribute}, {label:?}"), source: e }
        }
        (Module::Selinux, _) => {
            Error::System { doing: format!("process.selinuxLabel: {attribute}, {label:?}"), source: e }
        }
    }
}

/// The mount options of mount(8) that give a file system a context, which are the values of the annotation.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
/// crun's annotation that chooses among them; podman sets it.
pub const MOUNT_CONTEXT_TYPE: &str = "run.oci.mount_context_type";

/// `linux.mountLabel`: the SELinux context of the file systems that the runtime makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLabel {
    kind: &'static str,
    label: String,
}

impl MountLabel {
    /// Plans it; `annotations` may choose the kind of context.
    pub fn plan(
        linux: &Linux,
        annotations: Option<&HashMap<String, String>>,
        modules: Modules,
    ) -> Result<Option<MountLabel>> {
        let Some(label) = given(linux.mount_label()) else { return Ok(None) };
        check(Some(label), "linux.mountLabel")?;
        if label.contains('"') {
            return Err(config("linux.mountLabel", format!("{label:?} has a quotation mark in it")));
        }
        if !modules.selinux {
            let problem =
                "selinux label is specified in config, but selinux is disabled or not supported by this kernel";
            return Err(config("linux.mountLabel", format!("{problem}; remove the label {label:?}")));
        }
        let asked = annotations.and_then(|a| a.get(MOUNT_CONTEXT_TYPE)).map_or("context", String::as_str);
        match CONTEXTS.into_iter().find(|kind| *kind == asked) {
            Some(kind) => Ok(Some(MountLabel { kind, label: label.clone() })),
            None => Err(config(
                format!("annotations[{MOUNT_CONTEXT_TYPE:?}]"),
                format!("{asked:?} is none of {}", CONTEXTS.join(", ")),
            )),
        }
    }

    /// What [`MountLabel::option`] was made of.
    pub fn of_option(option: &str) -> Option<MountLabel> {
        let (kind, label) = option.split_once('=')?;
        let kind = CONTEXTS.into_iter().find(|k| *k == kind)?;
        Some(MountLabel { kind, label: label.into() })
    }

    /// The mount option.
    pub fn option(&self) -> String {
        format!("{}={}", self.kind, self.label)
    }

    /// Gives each new file system the label. As in runc: proc and sysfs have the labels of the policy, mqueue takes no
    /// option and has its root labelled, and what is bound has its files' own.
    pub fn apply_to(&self, mounts: &mut [MountPlan]) {
        for mount in mounts {
            match &mount.kind {
                MountKind::FileSystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs") => {}
                MountKind::FileSystem { fstype, .. } if fstype == "mqueue" => {
                    mount.options.root_label = Some(self.label.clone());
                }
                MountKind::FileSystem { .. } => mount.options.data.push(self.option()),
                MountKind::Bind { .. } | MountKind::Cgroup | MountKind::Remount => {}
            }
        }
    }
}

/// Why a file system with these options was refused, if a context may be the reason: the kernel says EINVAL and no more.
pub fn explain_context(options: &[String], e: &rrt_sys::SysError) -> Option<&'static str> {
    let is_context = |o: &&String| o.split_once('=').is_some_and(|(key, _)| CONTEXTS.contains(&key));
    let option = options.iter().find(is_context).filter(|_| e.is(errno::EINVAL))?;
    // The option is refused, or the file system with it.
    Some(match e.call().contains(&format!("{:?}", unquoted(option))) {
        true => "linux.mountLabel, or the mount's own option: not a context of the loaded policy",
        false => "linux.mountLabel, or the mount's own option: this file system may not take this kind of context",
    })
}

/// An option as fsconfig(2) takes it: the quotation marks around a context are for lists with commas.
pub fn unquoted(option: &str) -> String {
    match option.split_once('=') {
        Some((key, value)) if CONTEXTS.contains(&key) => format!("{key}={}", value.trim_matches('"')),
        _ => option.into(),
    }
}

/// An option in a list with commas, as mount(2) takes it: a context of several categories has commas of its own.
pub fn quoted(option: &str) -> String {
    match option.split_once('=') {
        Some((key, value)) if CONTEXTS.contains(&key) => format!("{key}=\"{}\"", value.trim_matches('"')),
        _ => option.into(),
    }
}

/// Labels the root directory of a new mount.
pub fn label_root(mount: std::os::fd::BorrowedFd<'_>, label: &str) -> rrt_sys::Result<()> {
    let dir = path::openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    path::set_xattr(dir, "security.selinux", label.as_bytes())
}

#[cfg(test)]
mod tests;
