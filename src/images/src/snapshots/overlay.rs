//! Overlay: by the kernel, as root (`trusted.overlay.*`) or in a user namespace (`user.overlay.*`, Linux 5.11), or by fuse-overlayfs where
//! the kernel does not let an ordinary user.

use super::home::{make_directory, scratch};
use super::mount::{self, Overlay};
use super::{Driver, Error, Mounted, View, Whiteouts, Written};
use crate::tree;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The kernel's overlay.
pub(super) struct Kernel {
    /// The driver's directory.
    pub home: PathBuf,
    /// `user.overlay.*`.
    pub user: bool,
}

/// The program fuse-overlayfs.
pub(super) struct Fuse {
    /// The driver's directory.
    pub home: PathBuf,
}

/// The parts of a container's place.
struct Place {
    upper: PathBuf,
    work: PathBuf,
    merged: PathBuf,
}

fn parts(place: &Path) -> Place {
    Place { upper: place.join("upper"), work: place.join("work"), merged: place.join("merged") }
}

fn make_place(place: &Path) -> Result<(), Error> {
    let Place { upper, work, merged } = parts(place);
    for directory in [&upper, &work, &merged] {
        make_directory(directory)?;
    }
    // The root of the container has the upper directory's mode.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("chmod", &upper, e))
}

/// A layer's directory, which is the root of an image whose archive does not have "/".
fn make_layer(fs: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    make_directory(fs)?;
    std::fs::set_permissions(fs, std::fs::Permissions::from_mode(0o755)).map_err(|e| Error::io("chmod", fs, e))
}

/// An overlay without upper directory needs two layers: an empty one is always there.
fn highest_first(layers: &[PathBuf], empty: Option<&Path>) -> Vec<PathBuf> {
    layers.iter().rev().cloned().chain(empty.map(Path::to_owned)).collect()
}

/// The empty directory: an image without layers.
fn empty(home: &Path) -> Result<PathBuf, Error> {
    let empty = home.join("empty");
    make_layer(&empty)?;
    Ok(empty)
}

impl Driver for Kernel {
    fn name(&self) -> &'static str {
        "overlay2"
    }

    fn whiteouts(&self) -> Whiteouts {
        if self.user { Whiteouts::OverlayUser } else { Whiteouts::Overlay }
    }

    fn make_layer(&self, fs: &Path, _: Option<&Path>) -> Result<(), Error> {
        make_layer(fs)
    }

    fn view(&self, layers: &[PathBuf], scratch: &Path) -> Result<View, Error> {
        let empty = empty(&self.home)?;
        if layers.is_empty() {
            return View::open(&empty);
        }
        let lower = highest_first(layers, (layers.len() == 1).then_some(&*empty));
        let overlay = Overlay { lower: &lower, upper: None, userxattr: self.user };
        Ok(View::new(overlay.detached(scratch)?))
    }

    fn make_container(&self, place: &Path, _: &[PathBuf]) -> Result<(), Error> {
        make_place(place)
    }

    fn mount(&self, place: &Path, layers: &[PathBuf]) -> Result<PathBuf, Error> {
        let Place { upper, work, merged } = parts(place);
        if mount::is_mounted(&merged) {
            return Ok(merged);
        }
        let empty = if layers.is_empty() { Some(empty(&self.home)?) } else { None };
        let lower = highest_first(layers, empty.as_deref());
        Overlay { lower: &lower, upper: Some((&upper, &work)), userxattr: self.user }.at(&merged)?;
        Ok(merged)
    }

    fn unmount(&self, place: &Path) -> Result<(), Error> {
        mount::unmount(&parts(place).merged)
    }

    fn written(&self, place: &Path, _: &[PathBuf]) -> Result<Written, Error> {
        Ok(Written::Upper(View::open(&parts(place).upper)?, self.whiteouts()))
    }

    fn own(&self, place: &Path) -> PathBuf {
        parts(place).upper
    }

    fn delete(&self, path: &Path) -> Result<(), Error> {
        tree::remove(path)
    }

    fn info(&self) -> Vec<(String, String)> {
        let rows = [
            ("Supports d_type", true),
            ("Using metacopy", false),
            // A layer's directory is complete without those below.
            ("Native Overlay Diff", true),
            ("userxattr", self.user),
        ];
        rows.map(|(name, value)| (name.to_owned(), value.to_string())).into()
    }
}

impl Fuse {
    /// A container's, highest first; at least one.
    fn lower(&self, layers: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
        let empty = if layers.is_empty() { Some(empty(&self.home)?) } else { None };
        Ok(highest_first(layers, empty.as_deref()))
    }

    /// Mounts by the program, which stays in the background while the mount lives.
    fn run(lower: &[PathBuf], upper: Option<(&Path, &Path)>, target: &Path) -> Result<(), Error> {
        let escape =
            |path: &Path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
        let lower: Vec<String> = lower.iter().map(|path| escape(path)).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = upper {
            options.push_str(&format!(",upperdir={},workdir={}", escape(upper), escape(work)));
        }
        let mut command = Command::new("fuse-overlayfs");
        command.arg("-o").arg(options).arg(target);
        run(&mut command)
    }
}

/// Runs a program that is to say nothing.
pub(super) fn run(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |said: String| Error::Program { program: program.clone(), said };
    let output = command.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
        }
    }
}

impl Driver for Fuse {
    fn name(&self) -> &'static str {
        "fuse-overlayfs"
    }

    fn whiteouts(&self) -> Whiteouts {
        Whiteouts::OverlayUser
    }

    fn make_layer(&self, fs: &Path, _: Option<&Path>) -> Result<(), Error> {
        make_layer(fs)
    }

    fn view(&self, layers: &[PathBuf], scratch: &Path) -> Result<View, Error> {
        if layers.is_empty() {
            return View::open(&empty(&self.home)?);
        }
        make_directory(scratch)?;
        Fuse::run(&highest_first(layers, None), None, scratch)?;
        let mounted = Mounted(scratch.to_owned());
        let mut view = View::open(scratch)?;
        view.mounted = Some(mounted);
        Ok(view)
    }

    fn make_container(&self, place: &Path, _: &[PathBuf]) -> Result<(), Error> {
        make_place(place)
    }

    fn mount(&self, place: &Path, layers: &[PathBuf]) -> Result<PathBuf, Error> {
        let Place { upper, work, merged } = parts(place);
        if mount::is_mounted(&merged) {
            return Ok(merged);
        }
        let lower = self.lower(layers)?;
        Fuse::run(&lower, Some((&upper, &work)), &merged)?;
        Ok(merged)
    }

    fn unmount(&self, place: &Path) -> Result<(), Error> {
        mount::unmount(&parts(place).merged)
    }

    fn written(&self, place: &Path, layers: &[PathBuf]) -> Result<Written, Error> {
        // How it writes deletions depends on its version and on what it may do, and it does not know its own marks again in a directory
        // that is not the upper one: it is asked for the result.
        let Place { upper, work, merged } = parts(place);
        if mount::is_mounted(&merged) {
            return Ok(Written::Whole(View::open(&merged)?));
        }
        let lower = self.lower(layers)?;
        let at = scratch(&self.home);
        make_directory(&at)?;
        Fuse::run(&lower, Some((&upper, &work)), &at)?;
        let mounted = Mounted(at.clone());
        let mut view = View::open(&at)?;
        view.mounted = Some(mounted);
        Ok(Written::Whole(view))
    }

    fn own(&self, place: &Path) -> PathBuf {
        parts(place).upper
    }

    fn delete(&self, path: &Path) -> Result<(), Error> {
        tree::remove(path)
    }

    fn info(&self) -> Vec<(String, String)> {
        vec![("Supports d_type".to_owned(), "true".to_owned()), ("userxattr".to_owned(), "true".to_owned())]
    }
}
