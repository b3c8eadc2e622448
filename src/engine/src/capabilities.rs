//! Capabilities of a container: Docker's default list, changed by `--cap-add` and `--cap-drop`.

use crate::Error;

/// What a container has unless told otherwise (Docker's documentation, "Runtime privilege and Linux capabilities").
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All there are, by their numbers (capabilities(7)).
pub(crate) const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The container's capabilities, in the kernel's order. `--cap-add ALL` begins with all that `machine` has, `--cap-drop ALL` with
/// none; a name that is both added and dropped is dropped, unless ALL was dropped (Docker's rule).
///
/// # Errors
/// A name that is no capability.
pub fn capabilities(
    add: &[String],
    drop: &[String],
    privileged: bool,
    machine: &[&str],
) -> Result<Vec<&'static str>, Error> {
    let add = Names::parse("--cap-add", add)?;
    let drop = Names::parse("--cap-drop", drop)?;
    let has = |name: &&'static str| match (drop.all, add.all) {
        _ if privileged => true,
        (true, _) => add.list.contains(name),
        (false, all) => (all || DEFAULT.contains(name) || add.list.contains(name)) && !drop.list.contains(name),
    };
    // What was named is asked for even if the machine lacks it: the runtime warns. What only ALL means is not.
    Ok(ALL.into_iter().filter(has).filter(|n| machine.contains(n) || add.list.contains(n)).collect())
}

struct Names {
    all: bool,
    list: Vec<&'static str>,
}

impl Names {
    fn parse(flag: &'static str, names: &[String]) -> Result<Names, Error> {
        let mut parsed = Names { all: false, list: Vec::new() };
        for name in names {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match ALL.into_iter().find(|known| &known[4..] == bare) {
                Some(known) => parsed.list.push(known),
                None if bare == "ALL" => parsed.all = true,
                None => return Err(Error::invalid(flag, name, "unknown capability; `man 7 capabilities` lists them")),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str], privileged: bool) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        capabilities(&owned(add), &owned(drop), privileged, &ALL).unwrap()
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(of(&[], &[], false).len(), 14);
        assert!(of(&["net_admin"], &[], false).contains(&"CAP_NET_ADMIN"));
        assert!(!of(&[], &["CAP_chown"], false).contains(&"CAP_CHOWN"));
        assert_eq!(of(&["chown"], &["all"], false), ["CAP_CHOWN"]);
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"], false).len(), 40);
        assert_eq!(of(&[], &["ALL"], true).len(), 41);
        assert!(!of(&["kill"], &["kill"], false).contains(&"CAP_KILL"));
    }

    #[test]
    fn all_means_what_the_machine_has() {
        assert_eq!(capabilities(&["all".to_owned()], &[], false, &["CAP_KILL"]).unwrap(), ["CAP_KILL"]);
        let named = capabilities(&["bpf".to_owned()], &[], false, &["CAP_KILL"]).unwrap();
        assert_eq!(named, ["CAP_KILL", "CAP_BPF"]);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = capabilities(&["CAP_NOPE".to_owned()], &[], false, &ALL).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid value \"CAP_NOPE\" for --cap-add: unknown capability; `man 7 capabilities` lists them"
        );
    }
}
