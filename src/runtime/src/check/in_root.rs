//! What the root file system tells about a plan: mount points, nodes, the working directory, programs.
//!
//! A place that a mount will cover is not looked at: what is there only the container will know.

use super::{Findings, machine};
use crate::mounts::{MountKind, MountPlan};
use crate::plan::Plan;
use rrt_sys::path::{self, Root};
use rrt_sys::{FileType, OFlags, errno};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Looks at all of it; `program`: whether the program is config.json's own.
pub(super) fn look(plan: &Plan, root: &Root, program: bool, findings: &mut Findings) {
    let covered = |place: &Path| plan.mounts.iter().any(|m| place.starts_with(&m.destination));
    for (i, mount) in plan.mounts.iter().enumerate() {
        let by_earlier = |place: &Path| plan.mounts[..i].iter().any(|m| place.starts_with(&m.destination));
        if let Some(source) = &mount.in_root
            && !by_earlier(&Path::new("/").join(source))
        {
            findings.result(mount.find_in_root(root, source));
        }
        // A symlink at either end is no place that has to suit.
        let links = mount.options.links.of_source() || mount.options.links.destination;
        if !links
            && !by_earlier(&mount.destination)
            && let Some(problem) = mount_point(mount, root)
        {
            findings.error(format!("{}.destination: {:?} {problem}", mount.property, mount.destination));
        }
    }
    if !plan.dev.bind {
        for node in plan.dev.nodes.iter().filter(|n| !covered(&n.path)) {
            findings.result(node.look(root));
        }
    }
    let cwd = &plan.process.cwd;
    if !covered(cwd)
        && let Some(problem) = not_a_directory(root, cwd)
    {
        findings.error(format!("process.cwd: {cwd:?} {problem}"));
    }
    for hook in plan.hooks.start_container.iter().filter(|h| !covered(&h.path)) {
        match is_executable(root, &hook.path) {
            Ok(true) => {}
            Ok(false) => findings.error(machine::not_executable(hook)),
            Err(e) => findings.error(format!("{}.path {:?}, in the container: {e}", hook.property, hook.path)),
        }
    }
    if let Some(rules) = plan.process.landlock.as_ref().filter(|rules| !rules.best_effort) {
        for (place, _) in rules.paths.iter().filter(|(place, _)| !covered(place)) {
            if let Err(e) = root.resolve(place) {
                findings.error(format!(
                    "{}: allow {place:?}: {e}",
                    crate::annotations::property(crate::landlock::ANNOTATION)
                ));
            }
        }
    }
    if program {
        find_program(plan, root, &covered, findings);
    }
}

/// What is wrong with a mount point, as the root file system has it.
fn mount_point(mount: &MountPlan, root: &Root) -> Option<String> {
    let place = &mount.destination;
    let directory = match &mount.kind {
        MountKind::Bind { source, .. } => std::fs::metadata(source).ok().filter(|_| mount.in_root.is_none())?.is_dir(),
        // Of a mount that config.json does not make.
        MountKind::Remount => return root.resolve(place).err().map(|e| format!("cannot be remounted: {e}")),
        MountKind::FileSystem { .. } | MountKind::Cgroup => true,
    };
    let found = match &mount.kind {
        MountKind::FileSystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs") => {
            root.resolve_plain(place.strip_prefix("/").unwrap_or(place))
        }
        _ => root.resolve(place),
    };
    match found {
        Ok(found) => match (path::is_dir(&found).ok()?, directory) {
            (true, false) => Some("is a directory, and the source is a file".into()),
            (false, true) => Some("is not a directory, as it must be for this mount".into()),
            _ => None,
        },
        Err(e) if e.is(errno::ENOENT) => {
            is_read_only(root).then(|| "is missing, and the root file system is mounted read-only".into())
        }
        // The name or the place of a file system whose place may not be a symlink, or a file on the way.
        Err(e) => Some(format!("cannot be mounted on: {e}")),
    }
}

fn is_read_only(root: &Root) -> bool {
    path::is_read_only(root.as_dir()).unwrap_or(false)
}

/// A missing directory is made.
fn not_a_directory(root: &Root, place: &Path) -> Option<String> {
    match root.resolve(place) {
        Ok(found) => (!path::is_dir(&found).ok()?).then(|| "is not a directory".into()),
        Err(e) if e.is(errno::ENOENT) => is_read_only(root).then(|| "is missing, and cannot be made".into()),
        Err(e) => Some(e.to_string()),
    }
}

fn is_executable(root: &Root, place: &Path) -> rrt_sys::Result<bool> {
    let st = path::fstat(root.open_at(place, OFlags::PATH)?)?;
    Ok(FileType::from_raw_mode(st.st_mode) == FileType::RegularFile && st.st_mode & 0o111 != 0)
}

/// The program, unless a mount may bring it.
fn find_program(plan: &Plan, root: &Root, covered: &dyn Fn(&Path) -> bool, findings: &mut Findings) {
    let program = &plan.process.args[0];
    let places: Vec<String> = match program.contains('/') {
        true => vec![plan.process.cwd.join(program).to_string_lossy().into_owned()],
        false => {
            plan.process.path().split(':').filter(|d| d.starts_with('/')).map(|d| format!("{d}/{program}")).collect()
        }
    };
    if places.iter().any(|place| covered(Path::new(place))) {
        return;
    }
    let mut seen = places.iter().filter_map(|place| Some((place, is_executable(root, Path::new(place)).ok()?)));
    let why = match (seen.clone().find(|(_, executable)| *executable), seen.next(), program.contains('/')) {
        (Some((place, _)), ..) => match kind_of_program(root, Path::new(place)) {
            Kind::Runs => return,
            Kind::Through(interpreter) if covered(&interpreter) || root.resolve(&interpreter).is_ok() => return,
            Kind::Through(interpreter) => format!("its interpreter {interpreter:?} is missing in the root file system"),
            Kind::Unknown => "exec format error: neither an ELF file nor a script that begins with #!".into(),
        },
        (None, Some(_), _) => "is there, but is not an executable file".into(),
        (None, None, true) => "no such file in the root file system".into(),
        (None, None, false) => "executable file not found in $PATH of process.env, in the root file system".into(),
    };
    findings.error(format!("process.args[0]: {program:?}: {why}"));
}

/// What the kernel makes of a program.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// It executes it, as far as can be seen here.
    Runs,
    /// It executes another program for it: that of a script's first line, or the dynamic linker.
    Through(PathBuf),
    /// Nothing.
    Unknown,
}

/// How much of a program is read, in bytes; its headers are at the beginning.
const HEADERS: usize = 4096;

/// Reads its first bytes.
fn kind_of_program(root: &Root, place: &Path) -> Kind {
    // Only root can read some programs that all may execute.
    let Ok(file) = root.open_at(place, OFlags::RDONLY | OFlags::NONBLOCK) else { return Kind::Runs };
    let mut start = vec![0; HEADERS];
    let Ok(length) = path::read_some(&file, &mut start) else { return Kind::Runs };
    let start = &start[..length];
    let interpreter = if start.starts_with(b"#!") {
        script_interpreter(start)
    } else if start.starts_with(b"\x7fELF") {
        elf_interpreter(start)
    } else if has_other_formats() {
        None
    } else {
        return Kind::Unknown;
    };
    interpreter.map_or(Kind::Runs, Kind::Through)
}

/// Whether somebody has taught the kernel formats of his own (binfmt_misc).
fn has_other_formats() -> bool {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.map(|e| e.file_name()).any(|name| name != "register" && name != "status")
}

fn script_interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start[2..].split(|b| *b == b'\n').next()?;
    let name = line.split(|b| b.is_ascii_whitespace()).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name))).filter(|path| path.is_absolute())
}

/// The segment `PT_INTERP` of an ELF file of this machine's byte order (elf(5)); none is a static program.
fn elf_interpreter(start: &[u8]) -> Option<PathBuf> {
    /// `PT_INTERP`
    const INTERP: u64 = 3;
    let wide = *start.get(4)? == 2;
    let number = |at: usize, size: usize| {
        let bytes = start.get(at..at + size)?;
        let mut whole = [0; 8];
        let place = if cfg!(target_endian = "little") { 0 } else { 8 - size };
        whole[place..place + size].copy_from_slice(bytes);
        Some(u64::from_ne_bytes(whole))
    };
    let word = if wide { 8 } else { 4 };
    // e_phoff, e_phentsize, e_phnum; then p_offset and p_filesz of each.
    let (table, size, count) = if wide {
        (number(32, word)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, word)?, number(42, 2)?, number(44, 2)?)
    };
    let (offset, length) = if wide { (8, 32) } else { (4, 16) };
    let header = |i| usize::try_from(table.checked_add(i * size)?).ok();
    let interp = (0..count).filter_map(header).find(|at| number(*at, 4) == Some(INTERP))?;
    let from = usize::try_from(number(interp + offset, word)?).ok()?;
    let to = from.checked_add(usize::try_from(number(interp + length, word)?).ok()?)?;
    let name = start.get(from..to)?.split(|b| *b == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_program() {
        assert_eq!(script_interpreter(b"#! /bin/sh -e\nx"), Some("/bin/sh".into()));
        assert_eq!((script_interpreter(b"#!\n"), script_interpreter(b"#!sh\n")), (None, None));
        // This test itself, which is linked dynamically or is static.
        let own = std::fs::read("/proc/self/exe").unwrap();
        let found = elf_interpreter(&own[..HEADERS]);
        assert!(found.is_none_or(|path| path.is_file()));
        // A 64-bit header, one entry, the name behind it.
        let mut elf = vec![0u8; 120];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for (at, value) in [(32, 64), (54, 56), (56, 1), (64, 3), (64 + 8, 120), (64 + 32, 8)] {
            elf[at] = value;
        }
        elf.extend_from_slice(b"/lib/ld\0");
        assert_eq!(elf_interpreter(&elf), Some("/lib/ld".into()));
        for cut in 0..elf.len() {
            assert_eq!(elf_interpreter(&elf[..cut]), None, "{cut}");
        }
    }
}
