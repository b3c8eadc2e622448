//! Making the container's cgroup as planned.

use crate::cgroup::all_pids;
use crate::dir::{Dir, mkdir, rmdir};
use crate::error::Doing;
use crate::freeze::{FreezerState, v1_state, v2_state};
use crate::plan::{Devices, PlannedGroup, Rights, device_lines};
use crate::systemd::{Kind, SavedUnit, Systemd};
use crate::{Cgroup, CgroupPlan, Error, SavedCgroup, UnitPlan, Version, setting};
use rrt_sys::OFlags;
use rrt_sys::bpf::{attach_device_filter, device_filters, load_device_filter, program_by_id};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAKE: &str = "make the container's cgroup";

impl Cgroup {
    /// Makes the cgroup in every hierarchy and writes the limits and device rules. No process is in it yet.
    ///
    /// A cgroup that is there already is used, as runc does, if nothing runs in it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Frozen`], [`Error::Limit`], [`Error::Call`]. After an error the directories made here
    /// are gone again, and no others.
    pub fn create(plan: &CgroupPlan) -> Result<Cgroup, Error> {
        let mut cgroup = Cgroup::create_unified(plan)?;
        match cgroup.create_v1(plan) {
            Ok(()) => Ok(cgroup),
            Err(e) => {
                cgroup.unmake();
                Err(e)
            }
        }
    }

    /// Removes the directories that were made for it, those above the container's as well, after the last process has gone.
    pub fn unmake(self) {
        Made(self.made).remove_from(0);
    }

    /// The first half of [`Cgroup::create`]: the unified hierarchy, in whose cgroup a process has to be born.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn create_unified(plan: &CgroupPlan) -> Result<Cgroup, Error> {
        let mut cgroup = Cgroup::open(SavedCgroup::of(std::iter::empty()));
        cgroup.create_in(plan, Version::V2)?;
        Ok(cgroup)
    }

    /// The second half: the v1 hierarchies.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; what the first half has made stays.
    pub fn create_v1(&mut self, plan: &CgroupPlan) -> Result<(), Error> {
        self.create_in(plan, Version::V1)
    }

    fn create_in(&mut self, plan: &CgroupPlan, version: Version) -> Result<(), Error> {
        let mut made = Made(Vec::new());
        let mut there = Vec::with_capacity(plan.groups.len());
        for group in plan.groups.iter().filter(|group| group.version == version) {
            let before = made.0.len();
            let created = create_group(group, plan.rights, &mut made);
            match created.map_or_else(|e| without(group, plan.rights, e), |()| Ok(true)) {
                Ok(true) => there.push(group),
                Ok(false) => made.remove_from(before),
                Err(e) => {
                    made.remove_from(0);
                    return Err(e);
                }
            }
        }
        self.groups.extend(SavedCgroup::of(there.into_iter()).groups);
        self.made.append(&mut made.0);
        Ok(())
    }
}

/// Whether an error is that of a user without rights on the cgroup tree.
fn is_forbidden(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Goes without a cgroup that we may not make, if nothing needs it (false); otherwise an error that names what does.
fn without(group: &PlannedGroup, rights: Rights, error: Error) -> Result<bool, Error> {
    let Error::Call { source, .. } = &error else { return Err(error) };
    if rights == Rights::Required || !is_forbidden(&error) {
        return Err(error);
    }
    let Some(property) = needed_for(group, rights) else { return Ok(false) };
    Err(Error::Limit { property, source: source.clone(), hint: format!(": {NOT_DELEGATED}") })
}

pub(crate) const NOT_DELEGATED: &str = "no cgroup is delegated to this user here; start the runtime below one that is (`systemd-run \
                                        --user --scope -p Delegate=yes`), or remove the property";

/// The property that needs a cgroup of a rootless container.
pub(crate) fn needed_for(group: &PlannedGroup, rights: Rights) -> Option<String> {
    match (rights, group.settings.iter().flatten().next()) {
        (_, Some(limit)) => Some(limit.property.to_string()),
        (Rights::Named, None) => Some("linux.cgroupsPath".into()),
        _ => None,
    }
}

/// With the systemd driver, in this order, while init waits.
impl Cgroup {
    /// Looks whether the place of a unit's cgroup is free, before anything of the container exists.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Frozen`], [`Error::Call`].
    pub fn check_free(plan: &CgroupPlan) -> Result<(), Error> {
        plan.groups.iter().try_for_each(|group| match Dir::open(&group.dir()) {
            Err(e) if e.is(libc::ENOENT) => Ok(()),
            dir => check_unused(group, &dir.doing(MAKE)?),
        })
    }

    /// Has systemd make the unit around process `pid`, and returns what is to be remembered of it from now on.
    ///
    /// # Errors
    /// [`Error::Systemd`]; then the unit is not there, or goes with the process.
    pub fn start_unit(plan: &CgroupPlan, systemd: &mut Systemd, pid: i32) -> Result<SavedCgroup, Error> {
        let (Some(unit), Some(saved)) = (&plan.unit, plan.saved_unit()) else { return Ok(plan.saved()) };
        systemd
            .start(unit, pid.unsigned_abs(), || unit.kind == Kind::Scope && is_tracked(plan, pid).is_ok_and(|t| t))?;
        Ok(SavedCgroup { unit: Some(SavedUnit { started: true, ..saved }), ..plan.saved() })
    }

    /// Finishes what systemd has begun: the hierarchies it does not use, process `pid` in each of them, every limit and the
    /// device rules.
    ///
    /// Limits that systemd knows are written again: it does not tell when the kernel has refused one.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Call`]; [`Error::Invalid`] when systemd has put the process elsewhere.
    pub fn finish_unit(&self, plan: &CgroupPlan, pid: i32) -> Result<(), Error> {
        let own = own_cgroups(pid)?;
        if let Some(UnitPlan { kind: Kind::Scope, name, .. }) = &plan.unit
            && !is_in(plan.tracked(), &own)
        {
            let expected = plan.tracked().map(PlannedGroup::dir).unwrap_or_default();
            return Err(Error::Invalid {
                property: "linux.cgroupsPath".into(),
                reason: format!("systemd did not put {name} at {expected:?}; is that its root?"),
            });
        }
        for group in &plan.groups {
            let path = group.dir();
            let fresh = make_dirs(group, &path, &mut Made(Vec::new())).doing(MAKE)?;
            let dir = Dir::open(&path).doing(MAKE)?;
            let refused = if group.enable.is_empty() { Vec::new() } else { hand_down(group, &dir)? };
            if group.is_cpuset_v1() {
                inherit_cpuset(group, &dir, fresh)?;
            }
            for one in &group.settings {
                setting::apply(&dir, one, false).map_err(|e| explain(e, &refused))?;
            }
            match &group.devices {
                Some(Devices::V1(_)) => write_device_lines(group, &dir)?,
                // Beside systemd's own filter, if it has one: it keeps that one up, and we keep ours.
                Some(Devices::V2 { program, required }) => match filter_devices(&dir, program, true) {
                    // A user can load no filter, and needs none: he makes no node, and opens those there are by their modes.
                    Err(Error::Limit { .. }) if !required || plan.unit.as_ref().is_some_and(|u| u.user) => {}
                    done => done?,
                },
                None => {}
            }
            if !is_in(Some(group), &own) {
                dir.write("cgroup.procs", &pid.to_string()).doing(MAKE)?;
            }
        }
        Ok(())
    }
}

fn is_tracked(plan: &CgroupPlan, pid: i32) -> Result<bool, Error> {
    Ok(is_in(plan.tracked(), &own_cgroups(pid)?))
}

/// /proc/PID/cgroup
fn own_cgroups(pid: i32) -> Result<Vec<u8>, Error> {
    let doing = "read the cgroups of the container's init";
    let file = rrt_sys::path::open(Path::new(&format!("/proc/{pid}/cgroup")), OFlags::RDONLY).doing(doing)?;
    rrt_sys::path::read_limited(file, 1 << 20).doing(doing)
}

/// Whether a process is in a cgroup, by its /proc/PID/cgroup (`ID:controller,…:path` a line, cgroups(7)).
fn is_in(group: Option<&PlannedGroup>, own: &[u8]) -> bool {
    let Some(group) = group else { return false };
    let controllers = if group.version == Version::V2 { String::new() } else { group.controllers.join(",") };
    own.split(|b| *b == b'\n').any(|line| {
        let mut fields = line.splitn(3, |b| *b == b':').skip(1);
        fields.next() == Some(controllers.as_bytes())
            && fields.next().is_some_and(|path| Path::new("/").join(&group.path) == Path::new(OsStr::from_bytes(path)))
    })
}

/// The directories made so far, outer ones first.
struct Made(Vec<PathBuf>);

impl Made {
    /// Whether the directory is new.
    fn mkdir(&mut self, path: &Path) -> rrt_sys::Result<bool> {
        let new = mkdir(path)?;
        if new {
            self.0.push(path.to_owned());
        }
        Ok(new)
    }

    /// Removes them but for the first `kept`.
    fn remove_from(&mut self, kept: usize) {
        for path in self.0.drain(kept..).rev() {
            // Someone else may have begun to use it meanwhile; then it is theirs.
            let _ = rmdir(&path);
        }
    }
}

fn create_group(group: &PlannedGroup, rights: Rights, made: &mut Made) -> Result<(), Error> {
    let path = group.dir();
    let fresh = make_dirs(group, &path, made).doing(MAKE)?;
    let untouched = group.settings.is_empty() && group.devices.is_none() && group.enable.is_empty();
    if fresh && untouched && !group.is_cpuset_v1() {
        return Ok(());
    }
    let dir = Dir::open(&path).doing(MAKE)?;
    if !fresh {
        check_unused(group, &dir)?;
        if rights != Rights::Required {
            // It may be somebody else's. That is to be known before a process is to join it.
            dir.open_file("cgroup.procs", rrt_sys::OFlags::WRONLY).doing(MAKE)?;
        }
    }
    let mut refused = hand_down(group, &dir)?;
    if group.is_cpuset_v1() {
        inherit_cpuset(group, &dir, fresh)?;
    }
    let set = || group.settings.iter().try_for_each(|one| setting::apply(&dir, one, fresh));
    let mut done = set();
    for _ in 0..TAKEN_OFF {
        if group.version != Version::V2 || !done.as_ref().is_err_and(|e| e.errno() == Some(libc::ENOENT)) {
            break;
        }
        refused = hand_down(group, &dir)?;
        done = set();
    }
    done.map_err(|e| explain(e, &refused))?;
    let done = match &group.devices {
        Some(Devices::V1(_)) => write_device_lines(group, &dir),
        Some(Devices::V2 { program, required }) => match filter_devices(&dir, program, fresh) {
            Err(Error::Limit { .. }) if !required => Ok(()),
            done => done,
        },
        None => Ok(()),
    };
    match done {
        Err(e) if rights != Rights::Required && is_forbidden(&e) => Ok(()),
        done => done,
    }
}

/// How often controllers are handed down again: a systemd that starts or ends a unit beside ours takes those off that none of its own needs,
/// and while a machine boots it does so many times a second.
const TAKEN_OFF: usize = 10;

/// Makes the directory, and those above it where they are missing; says whether it is new. One mkdir(2) when only the
/// last is missing, as under any engine after its first container.
fn make_dirs(group: &PlannedGroup, path: &Path, made: &mut Made) -> rrt_sys::Result<bool> {
    match made.mkdir(path) {
        Err(e) if e.is(libc::ENOENT) => {}
        done => return done,
    }
    let mut current = group.mount.clone();
    let mut new = false;
    for name in &group.path {
        current.push(name);
        new = made.mkdir(&current)?;
    }
    Ok(new)
}

/// A cgroup that was there before must not hold processes, which the container's limits would hit and its end kill, nor
/// be frozen, for then the container's init would never run.
fn check_unused(group: &PlannedGroup, dir: &Dir) -> Result<(), Error> {
    let count = all_pids(dir)?.len();
    if count != 0 {
        return Err(Error::InUse { path: dir.path().to_owned(), count });
    }
    let state = match group.version {
        Version::V1 if group.controllers.iter().any(|c| c == "freezer") => v1_state(dir)?,
        Version::V1 => FreezerState::Thawed,
        Version::V2 => v2_state(dir)?,
    };
    if state == FreezerState::Thawed { Ok(()) } else { Err(Error::Frozen { path: dir.path().to_owned() }) }
}

/// v2: has every cgroup above hand the planned controllers down. Returns what could not be: whether that matters is
/// seen when a limit is written.
fn hand_down(group: &PlannedGroup, dir: &Dir) -> Result<Vec<rrt_sys::SysError>, Error> {
    let mut refused = Vec::new();
    if group.version == Version::V1 {
        return Ok(refused);
    }
    check_type(dir)?;
    if group.enable.is_empty() {
        return Ok(refused);
    }
    // The cgroup right above has them all, except for the first container below a new parent, and then those above it
    // have them too.
    let parent = group.path.parent().unwrap_or(Path::new(""));
    if missing(group, &Dir::open(&group.mount.join(parent)).doing(MAKE)?)?.is_empty() {
        return Ok(refused);
    }
    let mut current = group.mount.clone();
    enable(group, &current, &mut refused)?;
    for name in parent {
        current.push(name);
        enable(group, &current, &mut refused)?;
    }
    Ok(refused)
}

const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// The planned controllers that a cgroup does not hand down.
fn missing<'a>(group: &'a PlannedGroup, dir: &Dir) -> Result<Vec<&'a str>, Error> {
    let enabled = dir.read(SUBTREE_CONTROL).doing(MAKE)?;
    let enabled: HashSet<&str> = enabled.split_whitespace().collect();
    Ok(group.enable.iter().map(String::as_str).filter(|c| !enabled.contains(c)).collect())
}

fn enable(group: &PlannedGroup, path: &Path, refused: &mut Vec<rrt_sys::SysError>) -> Result<(), Error> {
    let dir = Dir::open(path).doing(MAKE)?;
    let mut missing = missing(group, &dir)?;
    if missing.is_empty() {
        return Ok(());
    }
    let line = |controllers: &[&str]| controllers.iter().map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ");
    let mut done = dir.write(SUBTREE_CONTROL, &line(&missing));
    if let Err(e) = &done
        && e.is(libc::ENOENT)
    {
        // One that is not available here refuses the whole line.
        refused.push(e.clone());
        let available = dir.read("cgroup.controllers").doing(MAKE)?;
        missing.retain(|c| available.split_whitespace().any(|a| a == *c));
        done = dir.write(SUBTREE_CONTROL, &line(&missing));
    }
    let Err(first) = done else { return Ok(()) };
    // A cgroup with processes (EBUSY) would still hand a few controllers down, one by one, and so become threaded: then
    // nothing below it could hold a container. Of all other refusals, each controller has its own reason.
    if first.is(libc::EBUSY) {
        refused.push(first);
    } else {
        refused.extend(missing.iter().filter_map(|c| dir.write(SUBTREE_CONTROL, &line(&[c])).err()));
    }
    Ok(())
}

/// A cgroup below a threaded one cannot hold the processes of a container.
fn check_type(dir: &Dir) -> Result<(), Error> {
    let kind = dir.read("cgroup.type").doing(MAKE)?;
    match kind.trim_end() {
        "domain" | "domain threaded" => Ok(()),
        kind => Err(Error::Invalid {
            property: "linux.cgroupsPath".into(),
            reason: format!(
                "the cgroup {:?} is \"{kind}\", because a cgroup above it is threaded; put the container elsewhere",
                dir.path()
            ),
        }),
    }
}

/// A limit that failed because its controller was not handed down gets the reason of that.
fn explain(error: Error, refused: &[rrt_sys::SysError]) -> Error {
    match (error, refused.first()) {
        (Error::Limit { property, source, hint }, Some(first)) if source.is(libc::ENOENT) => {
            let busy = if first.is(libc::EBUSY) {
                "; a cgroup with processes of its own can hand no controllers down: move them into a cgroup below it"
            } else {
                ""
            };
            Error::Limit { property, source, hint: format!("{hint} ({first}{busy})") }
        }
        (error, _) => error,
    }
}

/// v1: a new cpuset is empty, and an empty one takes no process and gives nothing to those below it. So the cgroups above
/// are filled first, from the top; then this one gets the same, unless config.json sets it.
fn inherit_cpuset(group: &PlannedGroup, dir: &Dir, fresh: bool) -> Result<(), Error> {
    let above = Dir::open(dir.path().parent().unwrap_or(&group.mount)).doing(MAKE)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = filled_cpuset(&group.mount, &above, file)?;
        let set = group.settings.iter().flatten().any(|w| w.file == file);
        if !set && (fresh || is_empty(&dir.read(file).doing(MAKE)?)) {
            dir.write(file, above.trim_end()).doing(MAKE)?;
        }
    }
    Ok(())
}

fn is_empty(cpuset: &str) -> bool {
    cpuset.trim_end().is_empty()
}

/// What a cgroup's file says, after it was given what the cgroup above has, if it said nothing.
fn filled_cpuset(mount: &Path, dir: &Dir, file: &str) -> Result<String, Error> {
    let value = dir.read(file).doing(MAKE)?;
    match dir.path().parent() {
        Some(above) if is_empty(&value) && dir.path() != mount => {
            let value = filled_cpuset(mount, &Dir::open(above).doing(MAKE)?, file)?;
            dir.write(file, value.trim_end()).doing(MAKE)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

const DEVICES: &str = "linux.resources.devices";

pub(crate) fn device_error(hint: &str) -> impl Fn(rrt_sys::SysError) -> Error {
    move |source| Error::Limit { property: DEVICES.into(), source, hint: hint.into() }
}

fn write_device_lines(group: &PlannedGroup, dir: &Dir) -> Result<(), Error> {
    let hint = ": a cgroup may allow only what the one above it allows, and must have none below it";
    let mut lines = device_lines(group);
    // Two files, each opened once: the first line resets the list, the rest are its exceptions.
    let Some((file, default)) = lines.next() else { return Ok(()) };
    dir.write(file, default).map_err(device_error(hint))?;
    let exceptions = if file == "devices.deny" { "devices.allow" } else { "devices.deny" };
    let mut lines = lines.map(|(_, line)| line).peekable();
    if lines.peek().is_some() {
        dir.write_all(exceptions, lines).map_err(device_error(hint))?;
    }
    Ok(())
}

/// v2: attaches the filter; in a cgroup that was there before it takes the place of the filter found there (an earlier
/// container's), because several would all have to allow a device.
fn filter_devices(dir: &Dir, program: &[rrt_sys::bpf::Insn], fresh: bool) -> Result<(), Error> {
    let hint = ": device rules on cgroup v2 need CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)";
    let program = load_device_filter(program).map_err(device_error(hint))?;
    let old = if fresh { Vec::new() } else { device_filters(dir.as_fd()).map_err(device_error(hint))? };
    let old = match old[..] {
        [id] => Some(program_by_id(id).map_err(device_error(hint))?),
        // None, or several from several programs that use this cgroup: then ours joins them.
        _ => None,
    };
    attach_device_filter(dir.as_fd(), program.as_fd(), old.as_ref().map(AsFd::as_fd)).map_err(device_error(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_without_controller_says_why() {
        let limit = |errno| Error::Limit {
            property: "linux.resources.memory.limit".into(),
            source: rrt_sys::SysError::new("open(\"memory.max\")", errno),
            hint: String::new(),
        };
        let refused = [rrt_sys::SysError::new("write \"+memory\" to \"/a/cgroup.subtree_control\"", libc::EBUSY)];
        let text = explain(limit(libc::ENOENT), &refused).to_string();
        assert!(text.contains("+memory") && text.contains("processes of its own"), "{text}");
        assert!(!explain(limit(libc::EINVAL), &refused).to_string().contains("+memory"));
    }
}
