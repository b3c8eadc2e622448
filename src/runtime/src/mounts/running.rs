//! `mounts`: mounts added to, replaced in, removed from and listed of a container that runs.
//!
//! The parent opens the sources of bind mounts on the host. A child joins the container's mount namespace and works there: places are
//! looked up below the container's root by the kernel, held by fd, and mounts are attached to them and taken from them by fd. It
//! never enters the pid namespace and executes nothing.

use super::options::MountOptions;
use super::{MountKind, MountPlan, Source, apply, open_sources};
use crate::Runtime;
use crate::error::{Doing, Error, InFile, Result, config};
use crate::facts::is_unprivileged;
use crate::handshake::{Channel, Frame};
use crate::host_root::HostRoot;
use crate::launch::died;
use crate::lsm::MountLabel;
use crate::namespaces::{NamespacePlan, kind};
use crate::rebirth::report_and_exit;
use crate::seal::Seal;
use crate::state::{State, StateDir, Status};
use rrt_oci::Mount;
use rrt_sys::mount::{self, Propagation};
use rrt_sys::path::{self, Root};
use rrt_sys::process::{self, SingleThreaded, clone3};
use rrt_sys::{OFlags, creds, errno, namespace};
use serde::Serialize;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What to do with mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Mount each; a missing mount point is made.
    Add,
    /// Mount each in the place of the one that is there, without a moment between.
    Replace,
    /// Detach what is mounted at each destination, with all below it.
    Remove,
}

/// A mount of a container, as its mountinfo has it (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mounted {
    /// Where, in the container.
    pub destination: String,
    /// The file system.
    #[serde(rename = "type")]
    pub fstype: String,
    /// Its source; of a bind mount that of the file system it is a part of.
    pub source: String,
    /// Which part of the file system.
    pub root: String,
    /// Options of the mount.
    pub options: Vec<String>,
}

impl Runtime {
    /// `mounts add`, `replace` and `remove`: `document` is a list of `mounts` as in config.json, `file` its name in errors.
    ///
    /// # Errors
    /// With the number of the entry in the list. What `add` has mounted before an entry fails is taken away again.
    pub fn change_mounts(&self, id: &str, change: Change, document: &[u8], file: &Path, seal: Seal) -> Result<()> {
        // A process of ours will be in the container.
        drop(seal);
        let state = self.living(id)?;
        let mounts: Vec<Mount> = serde_json::from_slice(document).in_file(file)?;
        let mut plans =
            plan(&mounts, change, &std::path::absolute(".").doing(|| "find the working directory".into())?)?;
        if let Some(label) = state.mount_label.as_deref().and_then(MountLabel::of_option) {
            label.apply_to(&mut plans);
        }
        let own = creds::permitted_set().doing(|| "read the runtime's own capabilities".into())?;
        let unprivileged = is_unprivileged(own);
        let sources = match change {
            Change::Add | Change::Replace if !unprivileged => open_sources(&plans, (Propagation::Slave, true))?,
            // A user may open trees of the host only in a user namespace of his: `reopen` does it, in the container's.
            _ => plans.iter().map(|_| None).collect(),
        };
        work(&state, change, &plans, sources, unprivileged)
    }

    /// `mounts list`
    pub fn list_mounts(&self, id: &str) -> Result<Vec<Mounted>> {
        let state = self.living(id)?;
        let Some(init) = state.init else { return Err(not_running()) };
        let file = format!("/proc/{}/mountinfo", init.pid);
        let text = std::fs::read_to_string(&file).doing(|| format!("read {file}"))?;
        // What was read was init's, if it lives still.
        if init.is_alive() { Ok(text.lines().filter_map(parse).collect()) } else { Err(not_running()) }
    }

    fn living(&self, id: &str) -> Result<State> {
        let dir = StateDir::open_unlocked(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Stopped => Err(not_running()),
            Status::Creating => Err(Error::Status("the container is being created".into())),
            _ => Ok(state),
        }
    }
}

fn not_running() -> Error {
    Error::Status("container not running".into())
}

fn plan(mounts: &[Mount], change: Change, base: &Path) -> Result<Vec<MountPlan>> {
    let one = |(i, mount): (usize, &Mount)| {
        if change == Change::Remove {
            // Only where it is counts, as in crun.
            let destination = super::clean(mount.destination());
            let property = format!("mounts[{i}]");
            let mut options = MountOptions::default();
            // Or a mounted symlink would be followed to another place.
            options.links.destination = mount.options().iter().flatten().any(|o| o == "dest-nofollow");
            return Ok(MountPlan {
                property,
                destination,
                kind: MountKind::Remount,
                options,
                idmap: None,
                in_root: None,
            });
        }
        let plan = MountPlan::new(mount, i, base, &NamespacePlan::default())?;
        let refuse = |what: &str| Err(Error::Unsupported(format!("{}: {what} on a running container", plan.property)));
        match &plan.kind {
            _ if plan.idmap.is_some() => refuse("an idmapped mount"),
            MountKind::Remount => refuse("the option \"remount\""),
            MountKind::Cgroup => refuse("a cgroup mount"),
            // They belong to namespaces that the mounting process would have to be born in, or decide about security.
            MountKind::FileSystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs") => refuse(fstype),
            _ if plan.options.links.copy => refuse("copy-symlink"),
            _ if plan.options.tmpcopyup || plan.options.iversion.is_some() => refuse("tmpcopyup or iversion"),
            _ => Ok(plan),
        }
    };
    mounts.iter().enumerate().map(one).collect()
}

/// The parent's sequence.
fn work(
    state: &State,
    change: Change,
    plans: &[MountPlan],
    mut sources: Vec<Option<Source>>,
    unprivileged: bool,
) -> Result<()> {
    let Some(init) = state.init else { return Err(not_running()) };
    let container = init.pidfd()?;
    let (channel, childs_end) = Channel::pair()?;
    let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
    // A container in the host's pid namespace can see the child (CVE-2016-9962).
    process::set_dumpable(false).doing(|| "close our /proc files".into())?;
    let binds = change != Change::Remove && plans.iter().any(|p| matches!(p.kind, MountKind::Bind { .. }));
    if state.namespaces & kind::USER != 0 && binds {
        reopen(&token, container.as_fd(), plans, &mut sources, unprivileged)?;
    }
    let kinds = state.namespaces & (kind::USER | kind::MOUNT | kind::IPC);
    let root = state.host_root.as_ref().map(HostRoot::open).transpose()?;
    let worker = Worker { token: &token, channel: childs_end, container, root, kinds, change, plans, sources };
    let child =
        clone3(&token, 0, None, move || worker.run()).doing(|| "make a process for the container's mounts".into())?;
    let answer = channel.receive();
    match answer {
        Ok(Some((Frame::Go, _))) => {
            child.wait().map(drop).doing(|| "reap the process for the container's mounts".into())
        }
        Ok(Some((Frame::Failed(text), _))) => {
            child.kill_and_reap();
            Err(Error::Status(text))
        }
        _ => Err(Error::Status(died(&child).to_string())),
    }
}

/// Opens the sources again in a mount namespace of the container's user namespace: only there the flags that the host gave a mount (ro,
/// nosuid, nodev, noexec) become locked, as in `Trees::lock`. What cannot be opened there stays the parent's; `unprivileged`: it has none,
/// for a user may open them nowhere else.
fn reopen(
    token: &SingleThreaded,
    container: BorrowedFd<'_>,
    plans: &[MountPlan],
    sources: &mut [Option<Source>],
    unprivileged: bool,
) -> Result<()> {
    let (channel, childs_end) = Channel::pair()?;
    let open_all = || -> Result<()> {
        process::set_parent_death_signal(9).doing(|| "bind the process to its parent".into())?;
        process::close_all_but(&[childs_end.as_fd().as_raw_fd(), container.as_raw_fd()])
            .doing(|| "close inherited fds".into())?;
        let doing = || "make a mount namespace of the container's user namespace".to_string();
        namespace::join_process(token, container, kind::USER).doing(doing)?;
        namespace::unshare(token, kind::MOUNT).doing(doing)?;
        for plan in plans {
            let source = match plan.open_source((Propagation::Slave, true)) {
                Err(e) if unprivileged => return Err(e),
                opened => opened.ok().flatten(),
            };
            childs_end.send(&Frame::Go, source.as_ref().map(|s| s.tree.as_fd()))?;
        }
        Ok(())
    };
    let child = clone3(token, 0, None, || match open_all() {
        Ok(()) => process::exit_now(0),
        Err(error) => report_and_exit(&childs_end, error),
    })
    .doing(|| "make a process for the container's mounts".into())?;
    drop(childs_end);
    let taken = sources.iter_mut().try_for_each(|source| match channel.receive()? {
        Some((Frame::Go, None)) => Ok(()),
        Some((Frame::Go, Some(tree))) => {
            let is_dir = path::is_dir(&tree).doing(|| "look at the source of a mount".into())?;
            *source = Some(Source { is_dir, tree });
            Ok(())
        }
        Some((Frame::Failed(text), _)) => Err(Error::Status(text)),
        _ => Err(Error::Status("the process for the container's mounts has ended".into())),
    });
    child.kill_and_reap();
    taken
}

/// The child.
struct Worker<'a> {
    token: &'a SingleThreaded,
    channel: Channel,
    container: OwnedFd,
    /// To be entered, if no mount namespace brings it.
    root: Option<OwnedFd>,
    kinds: i32,
    change: Change,
    plans: &'a [MountPlan],
    sources: Vec<Option<Source>>,
}

impl Worker<'_> {
    fn run(mut self) -> Infallible {
        match self.enter().and_then(|place| self.change_all(&place)).and_then(|()| self.channel.send(&Frame::Go, None))
        {
            Ok(()) => process::exit_now(0),
            Err(error) => report_and_exit(&self.channel, error),
        }
    }

    /// Joins the container's namespaces with nothing but what is needed.
    fn enter(&self) -> Result<Place> {
        let bind = || process::set_parent_death_signal(9).doing(|| "bind the process to its parent".into());
        bind()?;
        let trees = self.sources.iter().flatten().map(|s| &s.tree).chain(&self.root).map(AsRawFd::as_raw_fd);
        let keep: Vec<i32> =
            [self.channel.as_fd().as_raw_fd(), self.container.as_raw_fd()].into_iter().chain(trees).collect();
        process::close_all_but(&keep).doing(|| "close inherited fds".into())?;
        process::umask(0);
        // The host's procfs: the container's own may be anything.
        let fds = path::open(Path::new("/proc/self/fd"), OFlags::PATH | OFlags::DIRECTORY)
            .doing(|| "open the host's /proc".into())?;
        if self.kinds != 0 {
            namespace::join_process(self.token, self.container.as_fd(), self.kinds)
                .doing(|| "join the container's namespaces".into())?;
        }
        if let Some(root) = &self.root {
            HostRoot::enter(root.as_fd())?;
        }
        if self.kinds & kind::USER != 0 {
            // Who makes mount points has to be somebody in there.
            match creds::set_ids(0, 0) {
                Err(e) if e.is(errno::EINVAL) => {}
                done => done.doing(|| "become the user namespace's root".into())?,
            }
            // Both are lost with a change of ids.
            process::set_dumpable(false).doing(|| "close our /proc files".into())?;
            bind()?;
        }
        let root = Root::open(Path::new("/")).doing(|| "open the container's root".into())?;
        Ok(Place { root, fds })
    }

    fn change_all(&mut self, place: &Place) -> Result<()> {
        let mut attached = Vec::new();
        for (plan, source) in self.plans.iter().zip(std::mem::take(&mut self.sources)) {
            let done = match self.change {
                Change::Add => place.add(plan, source).map(|new| attached.push(new)),
                Change::Replace => place.replace(plan, source),
                Change::Remove => place.remove(plan),
            };
            if let Err(e) = done {
                attached.iter().rev().for_each(|new| drop(place.detach(new.as_fd())));
                return Err(e);
            }
        }
        Ok(())
    }
}

/// The container's root, seen from inside its mount namespace.
struct Place {
    root: Root,
    /// `/proc/self/fd` of the host's procfs.
    fds: OwnedFd,
}

impl Place {
    fn add(&self, plan: &MountPlan, source: Option<Source>) -> Result<OwnedFd> {
        let doing = || format!("{}: mount on {:?}", plan.property, plan.destination);
        let is_dir = source.as_ref().is_none_or(|s| s.is_dir);
        let target = plan.bind_place(&self.root, is_dir).doing(doing)?;
        let new = build(plan, source, target.as_fd())?;
        mount::attach(new.as_fd(), target.as_fd()).doing(doing)?;
        Ok(new)
    }

    /// The new mount goes beneath the old one, which is then taken off.
    fn replace(&self, plan: &MountPlan, source: Option<Source>) -> Result<()> {
        let old = self.mounted(plan)?;
        let new = build(plan, source, old.as_fd())?;
        let hint = "needs Linux 6.5, and a parent that passes no mounts on to others";
        mount::attach_beneath(new.as_fd(), old.as_fd())
            .doing(|| format!("{}: mount beneath {:?} ({hint})", plan.property, plan.destination))?;
        self.detach(old.as_fd()).doing(|| format!("{}: take the old mount off {:?}", plan.property, plan.destination))
    }

    fn remove(&self, plan: &MountPlan) -> Result<()> {
        let old = self.mounted(plan)?;
        let hint = "a mount that came with the user namespace cannot be taken off";
        self.detach(old.as_fd()).doing(|| format!("{}: unmount {:?} ({hint})", plan.property, plan.destination))
    }

    /// The mount that is at the destination, and not merely above it.
    fn mounted(&self, plan: &MountPlan) -> Result<OwnedFd> {
        let doing = || format!("{}.destination {:?}", plan.property, plan.destination);
        let wrong = |problem: String| Err(config(format!("{}.destination", plan.property), problem));
        let found = match plan.options.links.destination {
            true => self.root.resolve_link(&plan.destination).doing(doing)?,
            false => self.root.resolve(&plan.destination).doing(doing)?,
        };
        if !mount::is_mount_root(found.as_fd()).doing(doing)? {
            return wrong(format!("nothing is mounted at {:?} in the container", plan.destination));
        }
        // Where a symlink has led to: what hides the host's kernel from the container must stay.
        let name = found.as_raw_fd().to_string();
        let real = path::readlinkat(self.fds.as_fd(), OsStr::new(&name)).doing(doing)?;
        if real == Path::new("/") || ["/proc", "/sys"].iter().any(|p| real.starts_with(p)) {
            return wrong(format!("{real:?} keeps the host from the container and stays as it is"));
        }
        Ok(found)
    }

    /// Takes off the mount whose root an fd holds. By the fd's own name: the container cannot put another in its place.
    fn detach(&self, mounted: BorrowedFd<'_>) -> rrt_sys::Result<()> {
        mount::fchdir(&self.fds)?;
        mount::detach(&PathBuf::from(mounted.as_raw_fd().to_string()))
    }
}

/// The new mount, detached, with all its attributes.
fn build(plan: &MountPlan, source: Option<Source>, target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let doing = || format!("{}: mount on {:?}", plan.property, plan.destination);
    apply::check_place(plan, target, source.as_ref().map(|s| s.tree.as_fd()))?;
    let is_dir = path::is_dir(target).doing(doing)?;
    match (&plan.kind, source) {
        (MountKind::Bind { .. }, Some(source)) if source.is_dir != is_dir => {
            let kinds =
                if is_dir { "a directory, and the source is a file" } else { "a file, and the source is a directory" };
            Err(config(format!("{}.destination", plan.property), format!("{:?} is {kinds}", plan.destination)))
        }
        (MountKind::Bind { .. }, Some(source)) => {
            apply::set_attributes(source.tree.as_fd(), &plan.options).doing(doing)?;
            Ok(source.tree)
        }
        (MountKind::FileSystem { fstype, source }, _) => {
            let mut options = plan.fs_options();
            if fstype == "tmpfs" && !options.iter().any(|o| o.starts_with("mode=")) {
                options.push(format!("mode={:o}", path::fstat(target).doing(doing)?.st_mode & 0o7777));
            }
            let shown = OsStr::new(source.as_deref().unwrap_or(fstype));
            let new =
                mount::new_fs(OsStr::new(fstype), Some(shown), &options, mount::attr_from_bits(0)).doing(doing)?;
            apply::set_attributes(new.as_fd(), &plan.options).doing(doing)?;
            Ok(new)
        }
        _ => Err(config(&plan.property, "has no opened source")),
    }
}

/// A line of mountinfo.
fn parse(line: &str) -> Option<Mounted> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    Some(Mounted {
        fstype: right.next()?.to_owned(),
        source: unescape(right.next()?),
        root: unescape(left.get(3)?),
        destination: unescape(left.get(4)?),
        options: left.get(5)?.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash; what comes out is for people and JSON.
fn unescape(word: &str) -> String {
    let known = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    // The backslash last: it must not begin an escape that was none.
    known.iter().fold(word.to_owned(), |word, (escape, plain)| word.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str, change: Change) -> Result<Vec<MountPlan>> {
        plan(&serde_json::from_str::<Vec<Mount>>(json).unwrap(), change, Path::new("/b"))
    }

    #[test]
    fn a_line_of_mountinfo() {
        let m = parse(r"36 35 98:0 /sub /a\040b\134c rw,noatime master:1 - ext4 /dev/x rw").unwrap();
        let expected = ("/a b\\c", "ext4", "/dev/x", "/sub");
        assert_eq!((m.destination.as_str(), m.fstype.as_str(), m.source.as_str(), m.root.as_str()), expected);
        assert_eq!(m.options, ["rw", "noatime"]);
        assert!(parse("nothing").is_none());
    }

    #[test]
    fn what_cannot_be_mounted_later_is_named() {
        for (json, expected) in [
            (r#"[{"destination":"/p","type":"proc"}]"#, "mounts[0]: proc"),
            (r#"[{"destination":"/t","type":"tmpfs"},{"destination":"/c","type":"cgroup"}]"#, "mounts[1]: a cgroup"),
            (r#"[{"destination":"/x","options":["remount","ro"]}]"#, "remount"),
            (r#"[{"destination":"/x","options":["bind"]}]"#, "mounts[0].source: missing"),
            (r#"[{"destination":"/","type":"tmpfs"}]"#, "mounts[0].destination"),
        ] {
            let text = planned(json, Change::Add).unwrap_err().to_string();
            assert!(text.contains(expected), "{json}: {text}");
        }
        assert_eq!(planned(r#"[{"destination":"a/../b"}]"#, Change::Remove).unwrap()[0].destination, Path::new("/b"));
    }
}
