//! The program's own image in memory, and the file it comes from.

use crate::error::{Named, Result, SysError};
use crate::path;
use crate::start::Args;
use rustix::fs::OFlags;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed};
use rustix::process::{PrctlMmMap, configure_virtual_memory_map};
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Moves this running process onto `file`, which is its own on another mount: every segment is mapped from there, and then
/// `/proc/PID/exe` is. It does what executing `file` would.
///
/// The kernel itself sees to it that nothing is left behind: it changes `/proc/PID/exe` only when no memory is mapped from the old file any
/// more (EBUSY), which `/proc/PID/map_files` could lead to. `PR_SET_MM_MAP` of prctl(2)
///
/// # Errors
/// EINVAL if the program is not linked statically to a fixed address, or the kernel has no CONFIG_CHECKPOINT_RESTORE; EPERM without CAP_SYS_ADMIN and
/// CAP_CHECKPOINT_RESTORE. The process then goes on as it was.
pub fn move_onto(file: BorrowedFd<'_>, args: Args) -> Result<()> {
    // What open_tree(2) gives is O_PATH.
    let file = path::open(&path::proc_fd(file), OFlags::RDONLY)?;
    let segments = segments()?;
    for segment in &segments {
        match segment.is_writable {
            true => segment.copy()?,
            false => segment.map(&file)?,
        }
    }
    set_executable(&file, &segments, args)
}

/// A part of the program's file in memory, in whole pages.
struct Segment {
    memory: Range<usize>,
    /// Where it begins in the file.
    offset: u64,
    protection: ProtFlags,
    is_writable: bool,
}

/// The segments of a program that the kernel has put where the file says. getauxval(3), elf(5)
fn segments() -> Result<Vec<Segment>> {
    let moved = || SysError::new("getauxval(AT_PHDR): not linked to a fixed address", libc::EINVAL);
    let headers: *const libc::Elf64_Phdr = ptr::with_exposed_provenance(auxiliary(libc::AT_PHDR));
    if headers.is_null() {
        return Err(moved());
    }
    // SAFETY: the kernel tells where it has mapped the program's headers, and how many; they stay. getauxval(3)
    let headers = unsafe { std::slice::from_raw_parts(headers, auxiliary(libc::AT_PHNUM)) };
    let page = auxiliary(libc::AT_PAGESZ);
    let loaded: Vec<_> =
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|h| Segment::of(h, page)).collect();
    // The headers are at the beginning of the first. A dynamic linker has more of the file mapped than the headers say.
    let first = headers.as_ptr() as usize & !(page - 1);
    let is_fixed = loaded.first().is_some_and(|segment| segment.memory.start == first);
    match is_fixed && headers.iter().all(|header| header.p_type != libc::PT_INTERP) {
        true => Ok(loaded),
        false => Err(moved()),
    }
}

/// A value that the kernel has passed to the program. getauxval(3)
fn auxiliary(kind: libc::c_ulong) -> usize {
    // SAFETY: takes a number. getauxval(3)
    unsafe { libc::getauxval(kind) as usize }
}

impl Segment {
    fn of(header: &libc::Elf64_Phdr, page: usize) -> Segment {
        let start = header.p_vaddr as usize;
        let has = |flag| header.p_flags & flag != 0;
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::EXEC, has(libc::PF_X));
        Segment {
            memory: start & !(page - 1)..(start + header.p_filesz as usize).next_multiple_of(page),
            offset: header.p_offset & !(page as u64 - 1),
            protection,
            is_writable: has(libc::PF_W),
        }
    }

    fn start(&self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.memory.start)
    }

    /// Maps the same bytes from another file in its place.
    fn map(&self, file: &OwnedFd) -> Result<()> {
        let (start, size) = (self.start(), self.memory.len());
        // SAFETY: the pages get the content they have, the same file's, and nothing writes to either. mmap(2)
        unsafe { mmap(start, size, self.protection, MapFlags::PRIVATE | MapFlags::FIXED, file, self.offset) }
            .named(|| format!("mmap({start:p}, {size}, MAP_FIXED, {})", file.as_raw_fd()))
            .map(drop)
    }

    /// Puts a copy in its place that is mapped from no file.
    fn copy(&self) -> Result<()> {
        let (start, size) = (self.start(), self.memory.len());
        let (read_write, no) = (ProtFlags::READ | ProtFlags::WRITE, ptr::null_mut());
        // SAFETY: new memory at a place that the kernel chooses. mmap(2)
        let copy =
            unsafe { mmap_anonymous(no, size, read_write, MapFlags::PRIVATE) }.named(|| format!("mmap({size})"))?;
        // SAFETY: both are mapped and that long. ptr::copy_nonoverlapping
        unsafe { ptr::copy_nonoverlapping(start.cast::<u8>(), copy.cast::<u8>(), size) };
        // SAFETY: the pages get the content they have; nothing was written between the copy and this, there being one thread. mremap(2)
        unsafe { mremap_fixed(copy, size, size, MremapFlags::MAYMOVE, start) }
            .named(|| format!("mremap({size}, MREMAP_FIXED, {start:p})"))
            .map(drop)
    }
}

/// Makes `file` what `/proc/PID/exe` leads to. The call sets all that the kernel keeps of the image, so it is told again.
fn set_executable(file: &OwnedFd, segments: &[Segment], args: Args) -> Result<()> {
    let bounds = |is_wanted: fn(&Segment) -> bool| {
        let memory = segments.iter().find(|s| is_wanted(s)).map_or(0..0, |s| s.memory.clone());
        (memory.start as u64, memory.end as u64)
    };
    let (start_code, end_code) = bounds(|s| s.protection.contains(ProtFlags::EXEC));
    let (start_data, end_data) = bounds(|s| s.is_writable);
    // SAFETY: changes nothing. sbrk(3)
    let end = unsafe { libc::sbrk(0) } as u64;
    let (arguments, environment) = args.areas();
    let map = PrctlMmMap {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk: end,
        brk: end,
        start_stack: arguments.start,
        arg_start: arguments.start,
        arg_end: arguments.end,
        env_start: environment.start,
        env_end: environment.end,
        auxv: ptr::null_mut(),
        auxv_size: 0,
        exe_fd: file.as_fd().as_raw_fd(),
    };
    // SAFETY: reads a struct; no memory is changed, only what the kernel tells of it. prctl(2)
    unsafe { configure_virtual_memory_map(&map) }.named(|| "prctl(PR_SET_MM, PR_SET_MM_MAP)".into())
}
