//! Limits and scheduling of a process.

use crate::error::{Named, Result, check};

/// A resource limit, as setrlimit(2): the resource's number, the soft and the hard value (`u64::MAX`: unlimited).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`
    pub resource: i32,
    /// `rlim_cur`
    pub soft: u64,
    /// `rlim_max`
    pub hard: u64,
}

/// prlimit(2) of another process (or `0`: this one).
pub fn set_rlimit(pid: i32, limit: Rlimit) -> Result<()> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let no_old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `new` outlives the call, the old limit is not asked for. prlimit(2)
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, limit.resource, &raw const new, no_old) };
    check(ret, || format!("prlimit({pid}, {}, soft={}, hard={})", limit.resource, limit.soft, limit.hard)).map(drop)
}

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of the struct; filled by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Nice value, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Priority, for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// SCHED_DEADLINE runtime in nanoseconds.
    pub runtime: u64,
    /// SCHED_DEADLINE deadline in nanoseconds.
    pub deadline: u64,
    /// SCHED_DEADLINE period in nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) of this thread.
pub fn set_scheduler(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: the struct carries its own size and outlives the call. sched_setattr(2)
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    check(ret, || format!("sched_setattr({attr:?})")).map(drop)
}

/// ioprio_set(2) of this thread: class 1 (realtime), 2 (best effort) or 3 (idle), level 0 to 7.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let value = (i32::from(class) << 13) | i32::from(level);
    // SAFETY: integers only. ioprio_set(2)
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    check(ret, || format!("ioprio_set(class={class}, level={level})")).map(drop)
}

/// One more than the highest NUMA node that [`set_memory_policy`] takes: as many as any kernel is built for.
pub const MOST_NODES: usize = 1024;

/// set_mempolicy(2) of this thread: `MPOL_*` with its flags, and NUMA nodes by number.
///
/// # Errors
/// EINVAL for a mode or flag that the kernel has not, and for nodes without memory or outside of the cpuset.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<()> {
    let mut mask = [0u64; MOST_NODES / 64];
    for &node in nodes.iter().filter(|&&n| n < MOST_NODES) {
        mask[node / 64] |= 1 << (node % 64);
    }
    // The kernel counts one bit less than it is told.
    let bits = MOST_NODES + 1;
    // SAFETY: the mask has the bits that are said and outlives the call. set_mempolicy(2)
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) };
    check(ret, || format!("set_mempolicy({mode:#x}, {nodes:?})")).map(drop)
}

/// personality(2)
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: an integer only. personality(2)
    let ret = unsafe { libc::syscall(libc::SYS_personality, persona) };
    check(ret, || format!("personality({persona:#x})")).map(drop)
}

/// Gives this thread every CPU that its cgroup allows: a mask of the caller's is not the container's. sched_setaffinity(2)
pub fn reset_affinity() -> Result<()> {
    // As many CPUs as any kernel is built for; it takes those that exist and are allowed.
    let all = [u64::MAX; 128];
    // SAFETY: the mask is as long as is said and outlives the call. sched_setaffinity(2)
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&all), all.as_ptr()) };
    check(ret, || "sched_setaffinity(all)".into()).map(drop)
}

/// sched_setaffinity(2) of this thread, CPUs by number.
pub fn set_affinity(cpus: &[usize]) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus.iter().filter(|&&c| c < rustix::thread::CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).named(|| format!("sched_setaffinity({cpus:?})"))
}

/// `PR_SCHED_CORE` of prctl(2).
const PR_SCHED_CORE: i32 = 62;

/// Gives this process, with all its threads, a core scheduling cookie of its own: only processes with the same cookie share
/// a core with it, at the same time. Children inherit it. prctl(2) `PR_SCHED_CORE_CREATE`, Linux 5.14
///
/// # Errors
/// ENODEV without SMT, EINVAL when the kernel is built without it.
pub fn new_core_cookie() -> Result<()> {
    const PR_SCHED_CORE_CREATE: i32 = 1;
    const THREAD_GROUP: i32 = 1;
    // SAFETY: integers and a NULL pointer, which this operation does not look at. prctl(2)
    let ret = unsafe { libc::syscall(libc::SYS_prctl, PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, THREAD_GROUP, 0) };
    check(ret, || "prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE)".into()).map(drop)
}

/// Takes over the core scheduling cookie of process `pid`. prctl(2) `PR_SCHED_CORE_SHARE_FROM`, Linux 5.14
///
/// # Errors
/// As [`new_core_cookie`]; EPERM without the right to look into the process, ESRCH when it is gone.
pub fn share_core_cookie(pid: i32) -> Result<()> {
    const PR_SCHED_CORE_SHARE_FROM: i32 = 3;
    const THREAD: i32 = 0;
    // SAFETY: integers and a NULL pointer, which this operation does not look at. prctl(2)
    let ret = unsafe { libc::syscall(libc::SYS_prctl, PR_SCHED_CORE, PR_SCHED_CORE_SHARE_FROM, pid, THREAD, 0) };
    check(ret, || format!("prctl(PR_SCHED_CORE, PR_SCHED_CORE_SHARE_FROM, {pid})")).map(drop)
}
