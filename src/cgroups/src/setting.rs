//! One value for one cgroup file, and how a set of them is written.

use crate::Error;
use crate::dir::Dir;
use serde::Serialize;
use std::borrow::Cow;

/// A value for a file of the container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Write {
    /// The file's name.
    pub(crate) file: Cow<'static, str>,
    /// What is written, in one write(2).
    pub(crate) value: String,
    /// The property of config.json it comes from.
    pub(crate) property: Cow<'static, str>,
    /// What is tried when the file does not exist: another file, and its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otherwise: Option<(&'static str, String)>,
    /// A kernel without the file already does what is asked.
    pub(crate) optional: bool,
    /// A new cgroup has this value anyway, so it is written only into one that was there before.
    pub(crate) default: bool,
    /// How the file is put back when a later write fails.
    #[serde(skip)]
    pub(crate) undo: Undo,
}

/// How a file gets its earlier value back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undo {
    /// It holds one value, which can be written as it was read.
    Value,
    /// It holds a line a device, beginning with this key; where there was none, `key` and this text removes it.
    Line { key: String, none: Cow<'static, str> },
    /// It cannot be written as it is read.
    No,
}

impl Write {
    pub(crate) fn new(
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        property: impl Into<Cow<'static, str>>,
    ) -> Write {
        Write {
            file: file.into(),
            value: value.to_string(),
            property: property.into(),
            otherwise: None,
            optional: false,
            default: false,
            undo: Undo::Value,
        }
    }

    pub(crate) fn default_if(self, default: bool) -> Write {
        Write { default, ..self }
    }

    pub(crate) fn optional_if(self, optional: bool) -> Write {
        Write { optional, ..self }
    }

    pub(crate) fn or(self, file: &'static str, value: impl ToString) -> Write {
        Write { otherwise: Some((file, value.to_string())), ..self }
    }

    pub(crate) fn undo(self, undo: Undo) -> Write {
        Write { undo, ..self }
    }

    /// Writes it.
    fn apply(&self, dir: &Dir) -> rrt_sys::Result<()> {
        match (dir.write(&self.file, &self.value), &self.otherwise) {
            (Err(e), Some((file, value))) if e.is(libc::ENOENT) => dir.write(file, value),
            (Err(e), None) if e.is(libc::ENOENT) && self.optional => Ok(()),
            (done, _) => done,
        }
    }

    /// What would put the file back as it is now, if anything can.
    fn saved(&self, dir: &Dir) -> Option<Write> {
        let restore = |file: &Cow<'static, str>, value: String| Write::new(file.clone(), value, self.property.clone());
        let (file, now) = match dir.read(&self.file) {
            Ok(now) => (self.file.clone(), now),
            Err(_) => {
                let file: Cow<'static, str> = self.otherwise.as_ref()?.0.into();
                let now = dir.read(&file).ok()?;
                (file, now)
            }
        };
        match &self.undo {
            Undo::Value => {
                let value = now.trim_end();
                // An unset cpuset reads as nothing; "\n" is how it is written.
                Some(restore(&file, if value.is_empty() { "\n".into() } else { value.into() }))
            }
            Undo::Line { key, none } => {
                let line = now.lines().find(|l| l.split_whitespace().next() == Some(key));
                Some(restore(&file, line.map_or_else(|| format!("{key} {none}"), str::to_owned)))
            }
            Undo::No => None,
        }
    }
}

/// Values whose order matters: the kernel checks each against what the others are at that moment (a memory limit may not
/// be above the limit on memory and swap, a period has to fit the quota).
///
/// Which order works depends on the values before, so none is worked out: a value refused with EINVAL is tried again
/// after the others. Both raising and lowering come out right, with no file read.
pub(crate) type Setting = Vec<Write>;

/// Writes a set of values that belong together. `fresh`: the cgroup is new.
pub(crate) fn apply(dir: &Dir, setting: &Setting, fresh: bool) -> Result<(), Error> {
    let mut pending: Vec<&Write> = setting.iter().filter(|w| !(fresh && w.default)).collect();
    while !pending.is_empty() {
        let before = pending.len();
        let mut refused = None;
        let mut later = Vec::new();
        for write in pending {
            match write.apply(dir) {
                Ok(()) => {}
                Err(e) if e.is(libc::EINVAL) => {
                    later.push(write);
                    refused.get_or_insert((write, e));
                }
                Err(e) => return Err(limit_error(dir, write, e)),
            }
        }
        if let Some((write, e)) = refused
            && later.len() == before
        {
            return Err(limit_error(dir, write, e));
        }
        pending = later;
    }
    Ok(())
}

/// Writes several sets into several directories and does `then`, and puts back what was there when one of these fails.
pub(crate) fn apply_or_restore(
    settings: &[(&Dir, &Setting)],
    then: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut undo: Vec<(&Dir, Setting)> = Vec::new();
    for &(dir, setting) in settings {
        undo.push((dir, setting.iter().filter_map(|w| w.saved(dir)).collect()));
        if let Err(e) = apply(dir, setting, false) {
            restore(&undo);
            return Err(e);
        }
    }
    then().inspect_err(|_| restore(&undo))
}

fn restore(undo: &[(&Dir, Setting)]) {
    for (dir, setting) in undo.iter().rev() {
        // The first error is the one to report; a value that cannot be put back changes nothing about it.
        let _ = apply(dir, setting, false);
    }
}

fn limit_error(dir: &Dir, write: &Write, source: rrt_sys::SysError) -> Error {
    let hint = hint(dir, write, source.errno());
    let hint = if hint.is_empty() { hint } else { format!(": {hint}") };
    Error::Limit { property: write.property.to_string(), source, hint }
}

/// What may be the cause of a refused value.
fn hint(dir: &Dir, write: &Write, errno: i32) -> String {
    let file = write.file.as_ref();
    let text = match (errno, file) {
        (libc::ENOENT, "cpu.cfs_burst_us" | "cpu.max.burst") => "the file is there since Linux 5.14",
        (libc::ENOENT, "cpu.idle") => "the file is there since Linux 5.15",
        (libc::ENOENT, "blkio.leaf_weight" | "blkio.leaf_weight_device") => {
            "leaf weights went with the CFQ scheduler in Linux 5.0; remove the limit"
        }
        (libc::ENOENT, "memory.memsw.limit_in_bytes" | "memory.swap.max") => {
            "the kernel was started without swap accounting (swapaccount=1)"
        }
        (libc::ENOENT, _) if file.starts_with("hugetlb.") => return huge_page_hint(),
        (libc::ENOENT | libc::EACCES, _) if dir.read("cgroup.controllers").is_ok() => {
            return controller_hint(dir, file);
        }
        (libc::EBUSY, "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes" | "memory.max") => {
            return usage_hint(dir);
        }
        (libc::EINVAL, "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes") => {
            "the limit on memory and swap together may not be below the one on memory"
        }
        (libc::EINVAL, "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max") => {
            "quota and period have to be at least 1000 µs, the period at most 1 s, and the share at most that of the \
             cgroup above"
        }
        (libc::EINVAL, "cpu.cfs_burst_us" | "cpu.max.burst") => {
            "the burst may not be above the quota (linux.resources.cpu.quota)"
        }
        (libc::EINVAL, "cpu.shares" | "cpu.weight") => "the cgroup is idle (linux.resources.cpu.idle is 1)",
        (libc::EINVAL, "cpu.rt_runtime_us" | "cpu.rt_period_us") => {
            "the cgroup above has no realtime runtime to give; set its cpu.rt_runtime_us first"
        }
        (libc::EACCES | libc::EINVAL | libc::ERANGE | libc::ENODEV, "cpuset.cpus" | "cpuset.mems") => {
            return cpuset_hint(dir, file);
        }
        (libc::ENODEV, _) => "no whole disk has this number (a partition cannot be limited)",
        (libc::EOPNOTSUPP, _) => "the disk's I/O scheduler does not do this; weights need bfq",
        (libc::EPERM | libc::EACCES | libc::EROFS, _) => "the cgroup tree is not writable here",
        _ => "",
    };
    text.into()
}

fn usage_hint(dir: &Dir) -> String {
    let number = |files: [&str; 2]| {
        files.iter().find_map(|f| dir.read(f).ok()).map_or_else(|| "unknown".into(), |t| t.trim_end().to_owned())
    };
    let usage = number(["memory.usage_in_bytes", "memory.current"]);
    let peak = number(["memory.max_usage_in_bytes", "memory.peak"]);
    format!("it is too low (current usage: {usage}, peak usage: {peak})")
}

fn cpuset_hint(dir: &Dir, file: &str) -> String {
    let above = dir.path().parent().and_then(|p| Dir::open(p).ok());
    let effective = file.replace("cpuset.", "cpuset.effective_");
    let given = above.and_then(|d| d.read(&format!("{file}.effective")).or_else(|_| d.read(&effective)).ok());
    match given {
        Some(list) => format!("the cgroup above has {:?}", list.trim_end()),
        None => "not a part of what the cgroup above has".into(),
    }
}

fn huge_page_hint() -> String {
    match crate::stats::huge_page_sizes() {
        sizes if sizes.is_empty() => "this kernel has no huge pages".into(),
        sizes => format!("page sizes here: {}", sizes.join(", ")),
    }
}

/// On v2, a missing file means that its controller is not handed down to this cgroup.
fn controller_hint(dir: &Dir, file: &str) -> String {
    let controller = file.split('.').next().unwrap_or(file);
    let listed = dir.read("cgroup.controllers").unwrap_or_default();
    if controller == "cgroup" || listed.split_whitespace().any(|c| c == controller) {
        return "this kernel has no such file".into();
    }
    format!(
        "controller `{controller}` is not available here (available: {:?}): it is missing in cgroup.subtree_control of \
         a cgroup above, perhaps because that one has processes of its own",
        listed.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDir;

    #[test]
    fn a_missing_file_is_an_error_unless_there_is_another_way() {
        let fake = FakeDir::new("missing", &[("io.weight", "100")]);
        let dir = fake.open();
        apply(&dir, &vec![Write::new("io.bfq.weight", 500, "p").or("io.weight", 4950)], true).unwrap();
        assert_eq!(fake.content("io.weight"), "4950");
        apply(&dir, &vec![Write::new("memory.swap.max", 0, "p").optional_if(true)], true).unwrap();
        let text = apply(&dir, &vec![Write::new("pids.max", 1, "linux.resources.pids.limit")], true).unwrap_err();
        let text = text.to_string();
        assert!(text.starts_with("linux.resources.pids.limit: open(") && text.contains("ENOENT"), "{text}");
    }

    #[test]
    fn a_default_is_only_written_over_something() {
        let fake = FakeDir::new("default", &[("pids.max", "5")]);
        let setting = vec![Write::new("pids.max", "max", "p").default_if(true)];
        apply(&fake.open(), &setting, true).unwrap();
        assert_eq!(fake.content("pids.max"), "5");
        apply(&fake.open(), &setting, false).unwrap();
        assert_eq!(fake.content("pids.max"), "max");
    }

    #[test]
    fn a_failure_puts_back_what_was_there() {
        let files = [("pids.max", "5\n"), ("io.max", "8:0 rbps=1 wbps=max\n8:16 rbps=7\n"), ("cpuset.cpus", "\n")];
        let fake = FakeDir::new("undo", &files);
        let dir = fake.open();
        let line = |key: &str| Undo::Line { key: key.into(), none: "rbps=max".into() };
        let settings: Vec<Setting> = vec![
            vec![Write::new("pids.max", 9, "p")],
            vec![Write::new("io.max", "8:16 rbps=9", "p").undo(line("8:16"))],
            vec![Write::new("cpuset.cpus", "0", "p")],
            vec![Write::new("memory.max", 1, "linux.resources.memory.limit")],
        ];
        let all: Vec<(&Dir, &Setting)> = settings.iter().map(|s| (&dir, s)).collect();
        let text = apply_or_restore(&all, || Ok(())).unwrap_err().to_string();
        assert!(text.starts_with("linux.resources.memory.limit: "), "{text}");
        assert_eq!(fake.content("pids.max"), "5\n");
        assert_eq!(fake.content("cpuset.cpus"), "\n");
        assert!(fake.content("io.max").starts_with("8:16 rbps=7"), "{}", fake.content("io.max"));
        // A device without a line gets the text that means none.
        let saved = Write::new("io.max", "9:9 rbps=1", "p").undo(line("9:9")).saved(&dir).unwrap();
        assert_eq!(saved.value, "9:9 rbps=max");
    }
}
