//! bpf(2), as much of it as a cgroup's device filter needs.
//!
//! The kernel reads as many bytes of `union bpf_attr` as the caller names and takes the rest as zero, so each command
//! here passes a struct of just its own fields.

use crate::error::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// Commands, types and flags of linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The most programs the kernel attaches to one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four on little-endian machines, the
    /// other way round on big-endian ones; [`Insn::new`] knows.
    pub registers: u8,
    /// Offset of a jump or of a memory access.
    pub offset: i16,
    /// Immediate value.
    pub immediate: i32,
}

impl Insn {
    /// Makes an instruction with its registers where this machine's byte order wants them.
    pub const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
        let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        Insn { code, registers, offset, immediate }
    }

    /// The destination and the source register.
    pub const fn dst_src(self) -> (u8, u8) {
        let (low, high) = (self.registers & 15, self.registers >> 4);
        if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
    }
}

/// Issues a bpf(2) command.
fn bpf<T>(command: i32, attr: &mut T, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most the size named, which is that of a live, exclusively borrowed struct;
    // the pointers inside it are set by the functions below, to memory that outlives the call. bpf(2)
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    check(ret, call)
}

/// A new fd out of a bpf(2) command's return value.
fn owned(ret: libc::c_long) -> OwnedFd {
    // SAFETY: the commands that come here return a new fd (always close-on-exec) that nobody else has. bpf(2)
    unsafe { OwnedFd::from_raw_fd(ret as RawFd) }
}

/// Loads a device filter and returns its fd.
///
/// The verifier's log is not asked for: the programs are made by our own assembler, so that a refusal is either a
/// missing privilege or a bug that its tests have to find.
///
/// # Errors
/// EPERM without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8), or before 5.11 when `RLIMIT_MEMLOCK` is used up; EINVAL when
/// the verifier refuses.
pub fn load_device_filter(program: &[Insn]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    // No helper is called, so no helper's licence is needed; the text must be there all the same.
    let mut attr = Attr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    bpf(BPF_PROG_LOAD, &mut attr, || format!("bpf(BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions)", program.len()))
        .map(owned)
}

/// Attaches a device filter to a cgroup2 directory, beside those that are there, or in the place of `replace`.
///
/// With several programs, a device may be used only if all of them allow it.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_SYS_ADMIN, or when a cgroup above holds a program that forbids others; ENOENT when
/// `replace` is not attached here.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
        replace_bpf_fd: u32,
    }
    let mut attr = Attr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | replace.map_or(0, |_| BPF_F_REPLACE),
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let flags = if replace.is_some() { "BPF_F_ALLOW_MULTI|BPF_F_REPLACE" } else { "BPF_F_ALLOW_MULTI" };
    bpf(BPF_PROG_ATTACH, &mut attr, || format!("bpf(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, {flags})")).map(drop)
}

/// The ids of the device filters attached to a cgroup2 directory itself, in the order they run.
pub fn device_filters(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        // Named, so that the kernel is shown no byte that was never written.
        padding: u32,
    }
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = Attr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr, || "bpf(BPF_PROG_QUERY, BPF_CGROUP_DEVICE)".into())?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// A program's fd from its id.
///
/// # Errors
/// ENOENT when it is gone; EPERM without CAP_SYS_ADMIN.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attr = Attr { prog_id: id, next_id: 0, open_flags: 0 };
    bpf(BPF_PROG_GET_FD_BY_ID, &mut attr, || format!("bpf(BPF_PROG_GET_FD_BY_ID, {id})")).map(owned)
}

/// The tag of a loaded program: a hash of its instructions, the same for the same program.
pub fn program_tag(program: BorrowedFd<'_>) -> Result<[u8; 8]> {
    /// The beginning of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        prog_type: u32,
        id: u32,
        tag: [u8; 8],
    }
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attr =
        Attr { bpf_fd: program.as_raw_fd() as u32, info_len: size_of::<Info>() as u32, info: &raw mut info as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr, || "bpf(BPF_OBJ_GET_INFO_BY_FD)".into())?;
    Ok(info.tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_keeps_its_registers() {
        let insn = Insn::new(0xb4, 3, 10, -2, 7);
        assert_eq!(insn.dst_src(), (3, 10));
        assert_eq!(size_of::<Insn>(), 8);
    }
}
