//! Where the containers' state is kept, by runc's rules.

use rrt_runtime::Error;
use rrt_sys::OFlags;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The default of root, which runc's clients rarely use: they pass `--root`.
const SYSTEM_ROOT: &str = "/run/rrt";

/// The directory named by `--root`, absolute; else `/run/rrt`, and for users `$XDG_RUNTIME_DIR/rrt`, which is made. A user without the
/// variable (cron, sudo -u, ssh without pam_systemd) has the directory of the login sessions, if there is one.
///
/// # Errors
/// `--root` is `/`, or the user's directory cannot be made.
pub fn resolve(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return absolute(given);
    }
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let Some(xdg) = xdg.or_else(|| session_directory().map(Into::into)) else {
        return Ok(SYSTEM_ROOT.into());
    };
    if !is_honoured(root_kind(), std::env::var_os("USER").as_deref()) {
        return Ok(SYSTEM_ROOT.into());
    }
    let dir = Path::new(&xdg).join("rrt");
    make_sticky(&dir).map(|()| dir)
}

/// `/run/user/UID`, which pam_systemd(8) makes for a user and keeps for one that lingers; never root's.
fn session_directory() -> Option<PathBuf> {
    let (uid, _) = rrt_sys::creds::effective_ids();
    let dir = PathBuf::from(format!("/run/user/{uid}"));
    let own = uid != 0 && std::fs::symlink_metadata(&dir).is_ok_and(|m| m.is_dir() && m.uid() == uid);
    own.then_some(dir)
}

/// `list` of a `--root` that is not there: as runc does, an error, because somebody has mistyped it. The default may be missing;
/// then no container has been made yet.
///
/// # Errors
/// It is no directory, or cannot be looked at.
pub fn must_exist(given: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { doing: format!("--root {}: read it", given.display()), source };
    std::fs::read_dir(given).map(drop).map_err(failed)
}

fn absolute(given: &Path) -> Result<PathBuf, Error> {
    let root = std::path::absolute(given)
        .map_err(|source| Error::Io { doing: format!("--root {}: make it absolute", given.display()), source })?;
    // Every directory of `/` would be taken for a container.
    if root.components().count() < 2 {
        return Err(Error::Usage(format!("--root {}: must not be /: give a directory of its own", given.display())));
    }
    Ok(root)
}

/// Whether `$XDG_RUNTIME_DIR` counts. Real root is served by `/run/rrt` even with a login session's variable in its
/// environment, so that `sudo rrt list` and a service see the same containers. Root of a user namespace counts as a user,
/// unless the environment was set up for a root (`USER=root`).
fn is_honoured(root: Option<RootKind>, user: Option<&OsStr>) -> bool {
    match root {
        None => true,
        Some(RootKind::Host) => false,
        Some(RootKind::UserNamespace) => user != Some(OsStr::new("root")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RootKind {
    Host,
    UserNamespace,
}

/// None for an ordinary user.
fn root_kind() -> Option<RootKind> {
    let (uid, _) = rrt_sys::creds::effective_ids();
    let kind = || match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if !maps_everything(&map) => RootKind::UserNamespace,
        // Without /proc there is no telling; a host has one namespace.
        _ => RootKind::Host,
    };
    (uid == 0).then(kind)
}

/// user_namespaces(7): the initial namespace maps all ids to themselves, in one line.
fn maps_everything(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The XDG specification lets a cleaner remove old files from the runtime directory unless they have the sticky bit.
///
/// The directory has to be this user's own: the variable may name one that others can write, such as /tmp.
fn make_sticky(dir: &Path) -> Result<(), Error> {
    let doing = || format!("make {} for state: $XDG_RUNTIME_DIR must be writable, or give --root", dir.display());
    let failed = |source| Error::Io { doing: doing(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let open = rrt_sys::path::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
    let open = open.map_err(|e| failed(std::io::Error::from_raw_os_error(e.errno())))?;
    let directory = File::from(open);
    let owner = directory.metadata().map_err(failed)?.uid();
    let (own, _) = rrt_sys::creds::effective_ids();
    if owner != own {
        let problem =
            format!("{} belongs to uid {owner}: set XDG_RUNTIME_DIR to a directory of your own", dir.display());
        return Err(Error::Usage(problem));
    }
    directory.set_permissions(Permissions::from_mode(0o1700)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_counts_for_users_and_not_for_the_hosts_root() {
        let honoured = |root, user: Option<&str>| is_honoured(root, user.map(OsStr::new));
        assert!(honoured(None, None));
        assert!(!honoured(Some(RootKind::Host), None));
        assert!(!honoured(Some(RootKind::Host), Some("me")));
        assert!(honoured(Some(RootKind::UserNamespace), None));
        assert!(honoured(Some(RootKind::UserNamespace), Some("me")));
        assert!(!honoured(Some(RootKind::UserNamespace), Some("root")));
    }

    #[test]
    fn only_the_initial_user_namespace_maps_everything() {
        assert!(maps_everything("         0          0 4294967295\n"));
        assert!(!maps_everything("         0       1000          1\n"));
        assert!(!maps_everything("0 0 4294967294\n"));
        assert!(!maps_everything(""));
    }

    #[test]
    fn a_given_root_is_made_absolute_and_is_never_the_root_directory() {
        assert_eq!(absolute(Path::new("/tmp/x/")).unwrap(), Path::new("/tmp/x"));
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
        for bad in ["/", "//", "/."] {
            assert!(absolute(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
