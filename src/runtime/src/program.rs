//! The last steps before a program runs, the same for a container's init and for `exec`: limits, user, capabilities,
//! working directory, and the program found.

use crate::error::{Doing, Error, Result};
use crate::handshake::{Channel, Turn};
use crate::process::{ProcessPlan, rlimit_name};
use rrt_sys::creds::CapBits;
use rrt_sys::path::{self, Root};
use rrt_sys::process::{self, ExecArgs, SingleThreaded, inherited_fd};
use rrt_sys::{FileType, OFlags, creds, errno, limits, major, minor};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// A program ready to be executed.
pub struct Program<'a> {
    path: CString,
    args: ExecArgs,
    plan: &'a ProcessPlan,
    /// `HOME=…`, when the plan has none.
    home: Option<String>,
    /// Permitted beyond the plan, to load the seccomp filter.
    kept: CapBits,
}

/// The umask of a process that is given none.
pub const UMASK: u32 = 0o022;

/// How much of the container's /etc/passwd is read to find a home directory, in bytes.
const PASSWD_LIMIT: usize = 1 << 20;

impl<'a> Program<'a> {
    /// Turns this process into what the plan says, and finds the program. The order is the point:
    ///
    /// 1. what needs privileges: scheduling, limits, the owner of the standard streams;
    /// 2. no_new_privs and the bounding set, while CAP_SETPCAP is still there;
    /// 3. groups, then group, then user; the permitted capabilities are kept over the change and cut down after it;
    /// 4. the working directory, which may be closed to the user, so it is entered before; only if root is refused (a network
    ///    file system's) the user tries; and checked to be inside the root (CVE-2024-21626);
    /// 5. the program, as the user, so that `create` names a missing one before `start`.
    ///
    /// `user_namespace`: the parent sets the limits; `may_deny_groups`: this user namespace may deny setgroups.
    pub fn prepare(
        plan: &'a ProcessPlan,
        channel: &Channel,
        user_namespace: bool,
        may_deny_groups: bool,
    ) -> Result<Program<'a>> {
        if let Some(attr) = plan.scheduler {
            limits::set_scheduler(attr).map_err(|e| plan.scheduler_refused(e))?;
        }
        if let Some((class, level)) = plan.io_priority {
            limits::set_io_priority(class, level).doing(|| "process.ioPriority".into())?;
        }
        let home = home(plan);
        own_standard_streams(plan.uid)?;
        // While no limit on files is set and CAP_SYS_ADMIN is there; nothing after it opens anything but the program.
        if let Some(rules) = &plan.landlock {
            rules.restrict()?;
        }
        // Late, because a small limit on files or memory would hit the setup itself.
        if user_namespace && !plan.rlimits.is_empty() {
            channel.ask(Turn::Limits, None)?;
        } else {
            set_limits(0, plan)?;
        }
        if plan.no_new_privileges {
            process::set_no_new_privileges().doing(|| "process.noNewPrivileges".into())?;
        }
        let entered = process::chdir(&plan.cwd);
        let kept = become_user(plan, may_deny_groups)?;
        process::umask(plan.umask.unwrap_or(UMASK));
        match entered {
            Err(e) if e.is(errno::EACCES) || e.is(errno::EPERM) => process::chdir(&plan.cwd),
            entered => entered,
        }
        .doing(|| format!("chdir to process.cwd ({:?})", plan.cwd))?;
        check_cwd(&plan.cwd)?;
        let (path, args) = find(plan, home.as_ref())?;
        Ok(Program { path, args, plan, home, kept })
    }

    /// Loads the seccomp filter, then execve(2); returns only on failure. Nothing may come between the two, and nothing of what the
    /// filter could forbid: no memory is asked for, no fd closed.
    pub fn exec(&self, channel: &Channel, token: &SingleThreaded) -> Error {
        if let Some(filter) = &self.plan.seccomp
            && let Err(e) = filter.confine(&self.plan.capabilities, self.kept, channel, token)
        {
            return e;
        }
        let e = self.args.exec(&self.path);
        cannot_execute(&self.path.to_string_lossy(), &e, self.plan)
    }

    /// The variables that the program will have.
    pub fn environment(&self) -> Vec<String> {
        environment(self.plan, self.home.as_ref()).cloned().collect()
    }

    /// The last step of a hook that runs in the program's place.
    pub fn confine_hook(&self) -> rrt_sys::Result<()> {
        self.plan.seccomp.as_ref().map_or(Ok(()), |f| f.confine_hook(&self.plan.capabilities, self.kept))
    }
}

/// An empty HOME counts as none, and gives way.
fn environment<'a>(plan: &'a ProcessPlan, home: Option<&'a String>) -> impl Iterator<Item = &'a String> {
    plan.env.iter().filter(move |e| home.is_none() || !e.starts_with("HOME=")).chain(home)
}

fn find(plan: &ProcessPlan, home: Option<&String>) -> Result<(CString, ExecArgs)> {
    let c = |s: &String| CString::new(s.as_str()).map_err(|_| Error::Init(format!("{s:?} contains a NUL byte")));
    let argv = plan.args.iter().map(c).collect::<Result<_>>()?;
    let envp = environment(plan, home).map(c).collect::<Result<_>>()?;
    let args = ExecArgs::new(argv, envp);
    let name = &plan.args[0];
    if name.contains('/') {
        let path = c(name)?;
        return match args.check(&path) {
            Ok(()) => Ok((path, args)),
            Err(e) => Err(cannot_execute(name, &e, plan)),
        };
    }
    let mut denied = None;
    // A relative entry of PATH would find programs in whatever directory the container is started in.
    for dir in plan.path().split(':').filter(|d| d.starts_with('/')) {
        let path = c(&format!("{dir}/{name}"))?;
        match args.check(&path) {
            Ok(()) => return Ok((path, args)),
            Err(e) if e.is(errno::EACCES) => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(e) => cannot_execute(name, &e, plan),
        None => Error::Init(format!("exec: {name:?}: executable file not found in $PATH (process.args[0])")),
    })
}

/// Go's wording, which podman and Docker match to choose the exit codes 126 and 127.
fn cannot_execute(name: &str, e: &rrt_sys::SysError, plan: &ProcessPlan) -> Error {
    let text = match e.errno() {
        errno::ENOENT => "no such file or directory, or its interpreter is missing".into(),
        errno::EACCES => {
            format!("permission denied: not an executable file for this user{}", plan.labels.why_denied())
        }
        // no_new_privs, where it forbids the label.
        errno::EPERM => format!("{e}{}", plan.labels.why_denied()),
        errno::ENOEXEC => "exec format error: not a program for this machine, or a script without #!".into(),
        _ => e.to_string(),
    };
    Error::Init(format!("exec {name}: {text} (process.args[0])"))
}

/// Sets the plan's limits on a process (`0`: this one).
pub fn set_limits(pid: i32, plan: &ProcessPlan) -> Result<()> {
    (0..plan.rlimits.len()).try_for_each(|i| set_limit(pid, i, plan))
}

/// Sets one of them, `process.rlimits[i]`.
pub fn set_limit(pid: i32, i: usize, plan: &ProcessPlan) -> Result<()> {
    let limit = plan.rlimits[i];
    let hint = "raising a limit above the runtime's own needs CAP_SYS_RESOURCE";
    let doing = || format!("process.rlimits[{i}]: set {} ({hint})", rlimit_name(limit.resource));
    limits::set_rlimit(pid, limit).doing(doing)
}

/// Returns what stays permitted beyond the plan: execve will take it away, being in no set that execve passes on.
fn become_user(plan: &ProcessPlan, may_deny_groups: bool) -> Result<CapBits> {
    let caps = &plan.capabilities;
    let doing = |what: &'static str| move || format!("process.{what}");
    creds::limit_bounding_set(caps.bounding).doing(doing("capabilities.bounding"))?;
    creds::keep_capabilities(true).doing(doing("capabilities"))?;
    match if plan.keep_groups { Ok(()) } else { creds::set_groups(&plan.groups) } {
        // A user namespace with setgroups denied (user_namespaces(7)) allows no list, not even the empty one.
        Err(e) if e.is(errno::EPERM) && plan.groups.is_empty() && may_deny_groups => {}
        done => done.doing(doing("user.additionalGids"))?,
    }
    creds::set_ids(plan.uid, plan.gid).doing(doing("user"))?;
    let kept = match plan.seccomp.as_ref().map_or(0, |f| f.needs(plan.no_new_privileges)) {
        0 => 0,
        needed => needed & creds::permitted_set().doing(doing("capabilities"))?,
    };
    creds::set_capabilities(caps.effective, caps.permitted | kept, caps.inheritable).doing(doing("capabilities"))?;
    creds::keep_capabilities(false).doing(doing("capabilities"))?;
    creds::set_ambient(caps.ambient).doing(doing("capabilities.ambient"))?;
    Ok(kept)
}

/// Gives the standard streams to the user, so that a program can open `/dev/stdout` again. The null device is everybody's
/// and stays as it is; what is not ours to give is left alone, as in runc.
fn own_standard_streams(uid: u32) -> Result<()> {
    for stream in (0..3).filter_map(inherited_fd) {
        let st = path::fstat(stream).doing(|| "look at the standard streams".into())?;
        let kind = FileType::from_raw_mode(st.st_mode);
        let null = kind == FileType::CharacterDevice && (major(st.st_rdev), minor(st.st_rdev)) == (1, 3);
        if null {
            take_own_null(stream)?;
            continue;
        }
        if st.st_uid == uid {
            continue;
        }
        match path::fchown(stream, uid, st.st_gid) {
            Err(e) if [errno::EPERM, errno::EINVAL, errno::EROFS].contains(&e.errno()) => {}
            done => done.doing(|| format!("give a standard stream to uid {uid}"))?,
        }
    }
    Ok(())
}

/// The null device of the caller's is a node of the host, whose mode root in the container could change, and which criu cannot save:
/// the container's own takes its place. Unless that is something else, which an image may well have there.
fn take_own_null(stream: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    let Ok(own) = path::open(Path::new("/dev/null"), flags) else { return Ok(()) };
    let st = path::fstat(&own).doing(|| "look at the container's /dev/null".into())?;
    let is_null = FileType::from_raw_mode(st.st_mode) == FileType::CharacterDevice
        && (major(st.st_rdev), minor(st.st_rdev)) == (1, 3);
    if !is_null {
        return Ok(());
    }
    process::dup_onto_stdio(own.as_fd(), stream.as_raw_fd()).doing(|| "open the container's /dev/null".into())
}

/// A directory that is not below the root, reached through a leaked fd or a magic link, is refused (CVE-2024-21626).
fn check_cwd(cwd: &Path) -> Result<()> {
    let now = process::getcwd().doing(|| "process.cwd".into())?;
    if now.to_bytes().first() != Some(&b'/') {
        return Err(Error::Init(format!("process.cwd: {cwd:?} is outside the container's root; refused")));
    }
    Ok(())
}

/// `HOME=…` for a process that has none, from the container's own /etc/passwd, as in runc.
fn home(plan: &ProcessPlan) -> Option<String> {
    if plan.env.iter().any(|e| e.len() > "HOME=".len() && e.starts_with("HOME=")) {
        return None;
    }
    let home = || {
        let root = Root::open(Path::new("/")).ok()?;
        // The image may have a fifo there, or a file without end.
        let fd = root.open_at(Path::new("/etc/passwd"), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
        let regular = FileType::from_raw_mode(path::fstat(&fd).ok()?.st_mode) == FileType::RegularFile;
        let text = regular.then(|| path::read_limited(&fd, PASSWD_LIMIT).ok())??;
        let (_, home) = creds::passwd_entry(&text, plan.uid)?;
        String::from_utf8(home.to_vec()).ok().filter(|h| !h.is_empty() && !h.contains('\0'))
    };
    Some(format!("HOME={}", home().unwrap_or_else(|| "/".into())))
}
