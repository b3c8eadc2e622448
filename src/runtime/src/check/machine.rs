//! What only this machine can tell about a plan: its files, and its kernel.
//!
//! What leaves no trace is tried by the code that `create` has for it: a mount that is attached nowhere, a namespace that nobody stays in, a
//! setting of a child that ends. The answer is then the kernel's own, in the words of `create`.

use super::{Findings, in_root};
use crate::create::{cannot_clone, open_namespaces, refuse_host_settings};
use crate::error::{Doing, Result};
use crate::hooks::HookPlan;
use crate::mounts::{self, MountKind};
use crate::namespaces::{kind, name};
use crate::plan::Plan;
use crate::process::ProcessPlan;
use crate::{core_sched, id_maps, launch, lsm, net_devices, probe, program, rebirth, seccomp};
use rrt_cgroups::Cgroup;
use rrt_sys::path::Root;
use rrt_sys::process::{self, Child, SingleThreaded};
use rrt_sys::{errno, limits, namespace, signal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Looks at all of it; `program`: whether the program is config.json's own, and has to be there.
pub(super) fn look(plan: &mut Plan, program: bool, findings: &mut Findings) {
    let root = Root::open(&plan.root.path);
    if let Err(e) = &root {
        findings.error(format!("root.path {:?}: {e}", plan.root.path));
    }
    sources(plan, findings);
    hooks(plan, findings);
    let namespaces = joined(plan, findings);
    findings.result(refuse_host_settings(plan, &namespaces));
    if let Some(filter) = &plan.process.seccomp {
        findings.result(seccomp::check_agent(filter));
    }
    if let Some(rdt) = &plan.intel_rdt {
        findings.result(rdt.locate());
    }
    findings.result(Cgroup::check_free(&plan.cgroup).map_err(Into::into));
    plan.cgroup.refused().iter().for_each(|e| findings.error(e.to_string()));
    for device in &plan.net_devices {
        findings.result(net_devices::look(device));
    }
    for s in plan.sysctl.iter().filter(|s| !Path::new("/proc/sys").join(s.name.replace('.', "/")).exists()) {
        findings.warning(format!("linux.sysctl[{:?}]: not there on this machine; in the container it may be", s.name));
    }
    findings.result(plan.process.fit_to_kernel());
    if let Some(token) = findings.result(SingleThreaded::check().doing(|| "check that there is one thread".into())) {
        new_namespaces(plan, &token, findings);
        id_mapped(plan, &namespaces, findings);
        settings(plan, &token, findings);
    }
    if let Ok(root) = &root {
        in_root::look(plan, root, program, findings);
    }
}

/// What comes from the host: sources of mounts, file systems, device nodes, files that annotations name.
fn sources(plan: &Plan, findings: &mut Findings) {
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for m in &plan.mounts {
        match &m.kind {
            // What lies below the root may come from an earlier mount.
            MountKind::Bind { source, .. } if m.property != "NOTIFY_SOCKET" && m.in_root.is_none() => {
                let links = m.options.links.of_source();
                match if links { std::fs::symlink_metadata(source) } else { std::fs::metadata(source) } {
                    Err(e) => findings.error(format!("{}.source {source:?}: {e}", m.property)),
                    Ok(_) => {
                        findings.result(mounts::apply::refuse_over_proc(m, source));
                    }
                }
            }
            // Asking has the kernel load a module for it, as `create` would.
            MountKind::FileSystem { fstype, .. } if !file_systems.split_whitespace().any(|f| f == fstype) => {
                match rrt_sys::probe::file_system(fstype) {
                    Err(e) if e.is(errno::ENODEV) => findings.error(format!("{}.type: {e}", m.property)),
                    Err(_) => findings.warning(format!("{}.type: this kernel has no {fstype:?} loaded", m.property)),
                    Ok(_) => {}
                }
            }
            MountKind::FileSystem { fstype, source } if !plan.unprivileged => {
                findings.result(mounts::apply::try_file_system(m, fstype, source.as_deref()));
            }
            _ => {}
        }
    }
    for node in plan.dev.nodes.iter().filter(|_| plan.dev.bind) {
        if let Err(e) = std::fs::metadata(&node.path) {
            findings
                .error(format!("{}: the host's {:?}, to be bound in a user namespace: {e}", node.property, node.path));
        }
    }
    for (annotation, file) in plan.hooks.output.files() {
        let there = file.parent().is_some_and(Path::is_dir) && !file.is_dir();
        if !there {
            let property = crate::annotations::property(annotation);
            findings.error(format!("{property}: {file:?} is not a file in a directory of this host"));
        }
    }
    if let Some(path) = plan.annotations.get(launch::PIDFD_RECEIVER)
        && let Err(e) = std::fs::metadata(path)
    {
        findings.error(format!("{} {path:?}: {e}", crate::annotations::property(launch::PIDFD_RECEIVER)));
    }
}

/// Hooks whose programs are the host's; the others are looked for in the container.
fn hooks(plan: &Plan, findings: &mut Findings) {
    let h = &plan.hooks;
    let host = [&h.prestart, &h.create_runtime, &h.create_container, &h.poststart, &h.poststop];
    for hook in host.into_iter().flatten() {
        match std::fs::metadata(&hook.path) {
            Err(e) => findings.error(format!("{}.path {:?}: {e}", hook.property, hook.path)),
            Ok(m) if !m.is_file() || m.permissions().mode() & 0o111 == 0 => findings.error(not_executable(hook)),
            Ok(_) => {}
        }
    }
}

pub(super) fn not_executable(hook: &HookPlan) -> String {
    format!("{}.path {:?}: not an executable file", hook.property, hook.path)
}

/// The namespaces to join, as far as they can be opened and are what they should be.
fn joined(plan: &Plan, findings: &mut Findings) -> Vec<(crate::namespaces::Joined, OwnedFd)> {
    let mut opened = Vec::new();
    for joined in &plan.namespaces.joined {
        let Some(found) = findings.result(open_namespaces(std::slice::from_ref(joined))) else { continue };
        for (j, fd) in found {
            match namespace::kind_of(&fd) {
                Ok(actual) if actual != j.kind => {
                    let text = format!("{:?} is a {} namespace, not a {} one", j.path, name(actual), name(j.kind));
                    findings.error(format!("{}: {text}", j.property));
                }
                _ => opened.push((j, fd)),
            }
        }
    }
    opened
}

/// Whether the new namespaces can be had, and their ids mapped.
fn new_namespaces(plan: &Plan, token: &SingleThreaded, findings: &mut Findings) {
    let ns = &plan.namespaces;
    for (bit, kind_name, file) in kind::ALL {
        if ns.has(bit) && !Path::new("/proc/self/ns").join(file).exists() {
            findings.error(format!("linux.namespaces: this kernel has no {kind_name} namespaces"));
        }
    }
    findings.result(id_maps::find_helpers(ns, plan.id_maps));
    let new = ns.cloned | ns.unshared_first | ns.unshared;
    // In a user namespace of others it takes rights that only the container's processes have.
    if ns.is_joined(kind::USER) {
        return;
    }
    match rebirth::idle_child(token, new, plan.unprivileged) {
        Err(e) => findings.error(format!("linux.namespaces: {}", cannot_clone(new, e))),
        Ok(idle) if ns.is_new(kind::USER) => {
            findings.result(id_maps::write(ns, plan.id_maps, token, &idle.child));
        }
        Ok(_) => {}
    }
    if !ns.time_offsets.is_empty() && !plan.unprivileged {
        findings.result(rebirth::in_child(token, || {
            namespace::unshare(token, kind::TIME).doing(|| "linux.namespaces: time".into())?;
            launch::write_proc(own_pid(), "timens_offsets", &ns.time_offsets)
                .doing(|| "linux.timeOffsets: write timens_offsets".into())
        }));
    }
}

fn own_pid() -> i32 {
    std::process::id().try_into().unwrap_or_default()
}

/// Whether the sources of idmapped mounts can be mapped.
fn id_mapped(plan: &Plan, joined: &[(crate::namespaces::Joined, OwnedFd)], findings: &mut Findings) {
    if plan.unprivileged {
        findings.result(mounts::idmap::refuse(&plan.mounts));
        return;
    }
    for m in plan.mounts.iter().filter(|m| m.idmap.is_some()) {
        let one = std::slice::from_ref(m);
        // One below the root comes with the container. One that is not there has been told.
        let source = if m.in_root.is_some() { Ok(None) } else { m.open_source(plan.root.source_propagation()) };
        if let Ok(source) = source {
            findings.result(mounts::idmap::apply(one, &[source], joined));
        }
    }
}

/// What a process sets for itself, each in a child of its own.
fn settings(plan: &Plan, token: &SingleThreaded, findings: &mut Findings) {
    let p = &plan.process;
    let mut attempt = |work: &dyn Fn() -> Result<()>| {
        findings.result(rebirth::in_child(token, work));
    };
    for i in 0..p.rlimits.len() {
        attempt(&|| program::set_limit(0, i, p));
    }
    if p.oom_score_adj.is_some() && !plan.unprivileged {
        attempt(&|| set_own_score(p));
    }
    /// `SCHED_FIFO`, `SCHED_RR`
    const REAL_TIME: [u32; 2] = [1, 2];
    let real_time = p.scheduler.filter(|s| REAL_TIME.contains(&s.policy)).and_then(|_| plan.cgroup.has_realtime());
    if let Some(attr) = p.scheduler.filter(|_| real_time.is_none()) {
        attempt(&|| limits::set_scheduler(attr).map_err(|e| p.scheduler_refused(e)));
    }
    if let Some((class, level)) = p.io_priority {
        attempt(&|| limits::set_io_priority(class, level).doing(|| "process.ioPriority".into()));
    }
    if let Some(policy) = &plan.memory_policy {
        attempt(&|| policy.apply());
    }
    if plan.core_sched {
        attempt(&core_sched::create);
    }
    if !p.labels.is_empty() {
        attempt(&|| lsm::Writer::open(&p.labels)?.label_program(p.no_new_privileges));
    }
    if real_time == Some(false) {
        let problem = "a new cgroup has no time for a real-time policy; set linux.resources.cpu.realtimeRuntime";
        findings.error(format!("process.scheduler: {problem}"));
    }
    let Some(filter) = &p.seccomp else { return };
    for flag in probe::unknown_seccomp_flags(filter.flags) {
        findings.error(format!("linux.seccomp.flags: this kernel does not know {flag}"));
    }
    // A child under the filter may be unable to say even that it is done, or wait for the agent that it has not got: only a refusal counts.
    let loaded = rebirth::in_child(token, || {
        process::set_parent_death_signal(9).doing(|| "bind the trial to its parent".into())?;
        signal::end_after(1);
        process::set_no_new_privileges().doing(|| "linux.seccomp: try the filter".into())?;
        filter.try_load()
    });
    if let Err(e) = loaded
        && e.to_string().starts_with("linux.seccomp")
    {
        findings.error(e.to_string());
    }
}

fn set_own_score(plan: &ProcessPlan) -> Result<()> {
    let pid = own_pid();
    let pidfd = process::pidfd_open(pid).doing(|| "process.oomScoreAdj".into())?;
    launch::set_oom_score(plan, &Child { pid, pidfd }, None)
}
