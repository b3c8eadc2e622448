//! Changing the device rules of a container that runs: nothing that is allowed before and after is denied in between, and nothing
//! that is denied before and after is allowed.
//!
//! * v2: the new program takes the place of the old one in one call (`BPF_F_REPLACE`).
//! * v1: exceptions from the default are added one by one, and only then those that go are taken away. In between what the old or
//!   the new rules except is excepted. Only where the default itself changes ("all but" in place of "none but") the kernel begins a
//!   new list; then the container stands still meanwhile.
//!
//! With a manager that keeps device rules of its own, those have to be changed here too: a device may be used only if all allow it.

use crate::cgroup::NO_CGROUP;
use crate::create::device_error;
use crate::device::{DeviceRule, DevicesV1, fold_v1};
use crate::dir::Dir;
use crate::error::Doing;
use crate::systemd::{Systemd, device_properties};
use crate::{Cgroup, Error, FreezerState, bpf};
use rrt_sys::bpf::{attach_device_filter, device_filters, load_device_filter, program_by_id, program_tag};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const UPDATE: &str = "change the container's device rules";
/// How long the container may take to stand still.
const FREEZE: Duration = Duration::from_secs(10);

/// The rules in force with `more` after them, without those that a later one makes meaningless.
pub fn with_device_rules(rules: &[DeviceRule], more: &[DeviceRule]) -> Vec<DeviceRule> {
    let all: Vec<DeviceRule> = rules.iter().chain(more).copied().collect();
    let later_decides = |i: usize| all[i + 1..].iter().any(|later| later.decides_all_of(&all[i]));
    (0..all.len()).filter(|&i| !later_decides(i)).map(|i| all[i]).collect()
}

impl Cgroup {
    /// Puts the rules `new` in force in the place of `old`, which are those of the last call, or of `create`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for rules that v1 cannot express, [`Error::Unavailable`] without cgroups, [`Error::Limit`] when the kernel
    /// refuses. The old rules are in force then.
    pub fn update_devices(&self, old: &[DeviceRule], new: &[DeviceRule]) -> Result<(), Error> {
        let Some(unit) = self.unit.as_ref().filter(|u| u.started) else { return self.replace_rules(old, new) };
        // systemd's own list: what both lists allow it allows all the time, as the kernel's does.
        let mut systemd = Systemd::connect(unit.user)?;
        let legacy = self.v1("devices").is_some();
        systemd.set_properties(&unit.name, &device_properties(new, legacy))?;
        self.replace_rules(old, new)
            .inspect_err(|_| drop(systemd.set_properties(&unit.name, &device_properties(old, legacy))))
    }

    fn replace_rules(&self, old: &[DeviceRule], new: &[DeviceRule]) -> Result<(), Error> {
        if let Some(group) = self.v1("devices") {
            let (old, new) = (fold_v1(old)?, fold_v1(new)?);
            return self.update_v1(&Dir::open(&group.dir).doing(UPDATE)?, old, &new);
        }
        let Some(group) = self.unified() else {
            return Err(Error::Unavailable { what: UPDATE, reason: NO_CGROUP });
        };
        let hint = ": device rules on cgroup v2 need CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)";
        replace_filter(&Dir::open(&group.dir).doing(UPDATE)?, old, new).map_err(device_error(hint))
    }

    fn update_v1(&self, dir: &Dir, old: DevicesV1, new: &DevicesV1) -> Result<(), Error> {
        let old = in_force(old, &dir.read("devices.list").doing(UPDATE)?);
        let hint = ": a cgroup may allow only what the one above it allows";
        if old.allow_by_default == new.allow_by_default {
            let done = change(dir, &old, new);
            return done.map_err(device_error(hint));
        }
        let stands_still = self.freezer_state()? != FreezerState::Thawed;
        if !stands_still {
            self.freeze(FREEZE)?;
        }
        let done = begin_anew(dir, new).inspect_err(|_| drop(begin_anew(dir, &old)));
        if !stands_still {
            self.thaw()?;
        }
        let hint =
            ": a cgroup may allow only what the one above it allows, and must have none below it to change its default";
        done.map_err(device_error(hint))
    }
}

/// What the kernel says is in force; where it says only that all is allowed (it does not list what is denied then), what we know.
fn in_force(known: DevicesV1, list: &str) -> DevicesV1 {
    match (list.trim_end() == "a *:* rwm", known.allow_by_default) {
        (true, true) => known,
        (true, false) => DevicesV1 { allow_by_default: true, exceptions: Vec::new() },
        (false, _) => DevicesV1 { allow_by_default: false, exceptions: list.lines().map(str::to_owned).collect() },
    }
}

/// The files that add an exception and that take one away.
fn files(form: &DevicesV1) -> (&'static str, &'static str) {
    if form.allow_by_default { ("devices.deny", "devices.allow") } else { ("devices.allow", "devices.deny") }
}

/// The lines that lead from one form to another of the same default: first those to be added, then those to be taken away.
fn difference(old: &DevicesV1, new: &DevicesV1) -> (Vec<String>, Vec<String>) {
    let parse = |form: &DevicesV1| form.exceptions.iter().filter_map(|l| DeviceRule::parse(l)).collect::<Vec<_>>();
    let (old, new) = (parse(old), parse(new));
    let beyond = |these: &[DeviceRule], those: &[DeviceRule]| {
        let missing = |rule: &DeviceRule| those.iter().try_fold(*rule, |left, other| left.without_same(other));
        these.iter().filter_map(missing).map(|r| r.to_string()).collect::<Vec<_>>()
    };
    (beyond(&new, &old), beyond(&old, &new))
}

/// Writes the difference; after a failure what was written is undone, last first.
fn change(dir: &Dir, old: &DevicesV1, new: &DevicesV1) -> rrt_sys::Result<()> {
    let (add, take_away) = files(new);
    let (added, taken) = difference(old, new);
    let steps = added.iter().map(|line| (add, take_away, line)).chain(taken.iter().map(|line| (take_away, add, line)));
    let mut done = Vec::new();
    for (file, inverse, line) in steps {
        if let Err(e) = dir.write(file, line) {
            done.iter().rev().for_each(|(file, line): &(&str, &String)| drop(dir.write(file, line)));
            return Err(e);
        }
        done.push((inverse, line));
    }
    Ok(())
}

/// Resets the list to the form's default, and adds its exceptions.
fn begin_anew(dir: &Dir, form: &DevicesV1) -> rrt_sys::Result<()> {
    let (add, default) = files(form);
    dir.write(default, "a")?;
    if form.exceptions.is_empty() {
        return Ok(());
    }
    dir.write_all(add, form.exceptions.iter().map(String::as_str))
}

/// v2: which of the attached programs is ours is told by its tag, a hash of its instructions.
fn replace_filter(dir: &Dir, old: &[DeviceRule], new: &[DeviceRule]) -> rrt_sys::Result<()> {
    let attached: Vec<OwnedFd> =
        device_filters(dir.as_fd())?.into_iter().map(program_by_id).collect::<rrt_sys::Result<_>>()?;
    let program = load_device_filter(&bpf::compile(new))?;
    let replaced = match &attached[..] {
        [] => None,
        [one] => Some(one),
        several => {
            let tag = program_tag(load_device_filter(&bpf::compile(old))?.as_fd())?;
            let mut ours = several.iter().filter(|p| program_tag(p.as_fd()).is_ok_and(|t| t == tag));
            ours.next()
        }
    };
    attach_device_filter(dir.as_fd(), program.as_fd(), replaced.map(AsFd::as_fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDir, Random, random_rules};

    fn rules(lines: &[&str]) -> Vec<DeviceRule> {
        lines.iter().map(|l| DeviceRule::parse(l).unwrap()).collect()
    }

    #[test]
    fn what_a_later_rule_decides_is_forgotten() {
        let now = with_device_rules(
            &rules(&["deny a *:* rwm", "c 1:3 rwm", "c 1:5 r"]),
            &rules(&["deny c 1:3 rwm", "c 1:5 rw"]),
        );
        assert_eq!(now, rules(&["deny a *:* rwm", "deny c 1:3 rwm", "c 1:5 rw"]));
        assert_eq!(with_device_rules(&now, &rules(&["allow a *:* rwm"])), rules(&["a *:* rwm"]));
    }

    #[test]
    fn the_meaning_stays_when_rules_are_forgotten() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            let (one, two) = (random_rules(&mut random), random_rules(&mut random));
            let (all, short) = ([&one[..], &two].concat(), with_device_rules(&one, &two));
            for _ in 0..20 {
                let (kind, major, minor, access) = random.device();
                let allowed = |rules: &[DeviceRule]| crate::device::allowed(rules, kind, major, minor, access);
                assert_eq!(allowed(&all), allowed(&short), "{all:?} {short:?}");
            }
        }
    }

    #[test]
    fn v1_adds_before_it_takes_away() {
        let form = |lines: &[&str]| fold_v1(&rules(lines)).unwrap();
        let (added, taken) = difference(&form(&["c 1:3 rwm", "c 5:* r"]), &form(&["c 1:3 rw", "c 5:1 rw", "b 8:0 r"]));
        assert_eq!(added, ["c 5:1 rw", "b 8:0 r"]);
        assert_eq!(taken, ["c 1:3 m", "c 5:* r"]);
        let same = form(&["c 1:3 rwm"]);
        assert_eq!(difference(&same, &same), (vec![], vec![]));
    }

    #[test]
    fn a_line_that_the_kernel_refuses_undoes_those_before_it() {
        // The second file is missing, so the taking away fails; what was added is then to be taken back, which fails too, but the
        // error is the first one's.
        let fake = FakeDir::new("devices", &[("devices.allow", "")]);
        let form = |lines: &[&str]| fold_v1(&rules(lines)).unwrap();
        let error = change(&fake.open(), &form(&["c 1:3 r"]), &form(&["c 1:5 r"])).unwrap_err();
        assert!(error.is(libc::ENOENT) && error.call().contains("devices.deny"), "{error}");
    }

    #[test]
    fn the_kernels_list_is_believed() {
        let form = |lines: &[&str]| fold_v1(&rules(lines)).unwrap();
        assert_eq!(in_force(form(&["c 1:3 r"]), "c 1:3 rwm\nb *:* m\n").exceptions, ["c 1:3 rwm", "b *:* m"]);
        let open = form(&["a *:* rwm", "deny c 1:3 r"]);
        assert_eq!(in_force(open.clone(), "a *:* rwm\n"), open);
        assert_eq!(in_force(form(&[]), "a *:* rwm\n").exceptions, Vec::<String>::new());
        assert!(!in_force(open, "").allow_by_default);
    }
}
