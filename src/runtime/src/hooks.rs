//! Hooks: programs of the caller's, run at six moments with the container's state on their standard input.

use crate::annotations::property;
use crate::error::{Doing, Error, Result, config};
use rrt_oci::Hook;
use rrt_sys::process::{ExecArgs, Exit, SingleThreaded};
use rrt_sys::spawn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of signal(7), on x86 and ARM: a system call that a seccomp filter answers by the end of the process.
const SIGSYS: i32 = 31;

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// Where config.json names it, for errors.
    pub property: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments, `argv[0]` first.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u64>,
}

/// The six kinds, each in order (runtime-spec config.md, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HooksPlan {
    /// Deprecated; with `createRuntime`, before it.
    pub prestart: Vec<HookPlan>,
    /// In the runtime's namespaces, before pivot_root.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<HookPlan>,
    /// In the container, just before the program.
    pub start_container: Vec<HookPlan>,
    /// In the runtime's namespaces, after the program was started.
    pub poststart: Vec<HookPlan>,
    /// In the runtime's namespaces, after the container was deleted.
    pub poststop: Vec<HookPlan>,
    /// Where their output goes.
    #[serde(skip_serializing_if = "OutputPlan::is_none")]
    pub output: OutputPlan,
}

/// crun's annotation for a file of the host that the hooks' standard output is appended to.
pub const STDOUT: &str = "run.oci.hooks.stdout";
/// The same for their standard error; both may name one file.
pub const STDERR: &str = "run.oci.hooks.stderr";

/// Files for the output of all hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPlan {
    /// [`STDOUT`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<PathBuf>,
    /// [`STDERR`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<PathBuf>,
}

impl OutputPlan {
    fn new(annotations: &BTreeMap<String, String>) -> Result<OutputPlan> {
        let file = |name| match annotations.get(name).map(PathBuf::from) {
            Some(file) if !file.is_absolute() => {
                Err(config(property(name), format!("{file:?} is not an absolute path of the host")))
            }
            file => Ok(file),
        };
        Ok(OutputPlan { stdout: file(STDOUT)?, stderr: file(STDERR)? })
    }

    /// The files, each with its annotation.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [(STDOUT, &self.stdout), (STDERR, &self.stderr)];
        files.into_iter().filter_map(|(name, file)| Some((name, file.as_deref()?)))
    }

    fn is_none(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Opens the files, making them when they are missing; on the host, for hooks of the container as well.
    pub fn open(&self) -> Result<Output> {
        let open = |file: &Option<PathBuf>, name| {
            let open = |file: &PathBuf| {
                let opened = File::options().append(true).create(true).mode(0o700).open(file);
                opened.map(OwnedFd::from).doing(|| format!("{}: open {file:?}", property(name)))
            };
            file.as_ref().map(open).transpose()
        };
        Ok(Output { stdout: open(&self.stdout, STDOUT)?, stderr: open(&self.stderr, STDERR)? })
    }
}

/// The open files. Without one a hook's output is kept, and told when the hook fails.
#[derive(Debug, Default)]
pub struct Output {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Output {
    /// Their fds, which init keeps until its hooks have run.
    pub fn fds(&self) -> impl Iterator<Item = i32> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd)
    }
}

impl HooksPlan {
    /// Plans `hooks`.
    pub fn new(hooks: Option<&rrt_oci::Hooks>, annotations: &BTreeMap<String, String>) -> Result<HooksPlan> {
        let output = OutputPlan::new(annotations)?;
        let Some(h) = hooks else { return Ok(HooksPlan { output, ..HooksPlan::default() }) };
        Ok(HooksPlan {
            output,
            prestart: plan(h.prestart(), "prestart")?,
            create_runtime: plan(h.create_runtime(), "createRuntime")?,
            create_container: plan(h.create_container(), "createContainer")?,
            start_container: plan(h.start_container(), "startContainer")?,
            poststart: plan(h.poststart(), "poststart")?,
            poststop: plan(h.poststop(), "poststop")?,
        })
    }

    /// Whether the child has to stop before pivot_root for hooks of the runtime's namespaces.
    pub fn before_pivot(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }
}

const NUL: &str = "path, args or env contain a NUL byte";

fn plan(hooks: &Option<Vec<Hook>>, kind: &str) -> Result<Vec<HookPlan>> {
    let one = |(i, h): (usize, &Hook)| {
        let property = format!("hooks.{kind}[{i}]");
        if !h.path().is_absolute() {
            return Err(config(property + ".path", format!("{:?} is not an absolute path", h.path())));
        }
        let timeout = match h.timeout() {
            Some(t) if t <= 0 => return Err(config(property + ".timeout", format!("{t} is not above 0 seconds"))),
            t => t.map(|t| t as u64),
        };
        let args = match h.args() {
            Some(args) if !args.is_empty() => args.clone(),
            _ => vec![h.path().to_string_lossy().into_owned()],
        };
        let hook =
            HookPlan { property, path: h.path().clone(), args, env: h.env().clone().unwrap_or_default(), timeout };
        let mut texts = hook.args.iter().chain(&hook.env).map(|text| text.as_bytes());
        if texts.any(|text| text.contains(&0)) || hook.path.as_os_str().as_bytes().contains(&0) {
            return Err(config(hook.property, NUL));
        }
        Ok(hook)
    };
    hooks.iter().flatten().enumerate().map(one).collect()
}

/// Runs hooks one after the other, in `cwd`, and stops at the first that fails.
///
/// `stop`, when it becomes readable, ends a running hook: the container it was for has failed.
pub fn run(
    token: &SingleThreaded,
    hooks: &[HookPlan],
    state: &str,
    cwd: &Path,
    output: &Output,
    stop: Option<BorrowedFd<'_>>,
) -> Result<()> {
    hooks.iter().try_for_each(|h| run_one(token, h, state, cwd, output, stop, &|| Ok(())))
}

/// The same for hooks that run in the place of the program: under its filter of system calls, which `confine` loads.
pub fn run_confined(
    token: &SingleThreaded,
    hooks: &[HookPlan],
    state: &str,
    cwd: &Path,
    output: &Output,
    confine: &dyn Fn() -> rrt_sys::Result<()>,
) -> Result<()> {
    hooks.iter().try_for_each(|h| run_one(token, h, state, cwd, output, None, confine))
}

fn run_one(
    token: &SingleThreaded,
    hook: &HookPlan,
    state: &str,
    cwd: &Path,
    output: &Output,
    stop: Option<BorrowedFd<'_>>,
    confine: &dyn Fn() -> rrt_sys::Result<()>,
) -> Result<()> {
    let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| config(&hook.property, NUL));
    let argv = hook.args.iter().map(|a| c(a.as_bytes())).collect::<Result<_>>()?;
    let envp = hook.env.iter().map(|e| c(e.as_bytes())).collect::<Result<_>>()?;
    let path = c(hook.path.as_os_str().as_bytes())?;
    let timeout = hook.timeout.map(Duration::from_secs);
    let args = ExecArgs::new(argv, envp);
    let streams = [&output.stdout, &output.stderr].map(|fd| fd.as_ref().map(AsFd::as_fd));
    let outcome = spawn::run(token, &path, &args, state.as_bytes(), cwd, streams, timeout, stop, confine)
        .doing(|| hook.failed())?;
    let problem = match (outcome.exit, hook.timeout) {
        (Some(Exit::Code(0)), _) => return Ok(()),
        (Some(Exit::Code(code)), _) => format!("exit status {code}"),
        // What a seccomp profile does to a startContainer hook is worth a word; it is the one that runc has for it.
        (Some(Exit::Signal(signal @ SIGSYS)), _) => {
            format!("killed by signal {signal}: bad system call (linux.seccomp)")
        }
        (Some(Exit::Signal(signal)), _) => format!("killed by signal {signal}"),
        (None, Some(seconds)) => format!("killed after its timeout of {seconds} s (or with its container)"),
        (None, None) => "killed, because the container has failed meanwhile".into(),
    };
    let output = outcome.output.trim();
    let output = if output.is_empty() { String::new() } else { format!(", output: {output:?}") };
    Err(Error::Hook(format!("{}: {problem}{output}", hook.failed())))
}

impl HookPlan {
    /// runc's words, then the property: `error running prestart hook #1: hooks.prestart[1] ("/bin/x")`.
    fn failed(&self) -> String {
        let (kind, place) = self.property.trim_start_matches("hooks.").split_once('[').unwrap_or_default();
        let place = place.trim_end_matches(']');
        format!("error running {kind} hook #{place}: {} ({:?})", self.property, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_hooks_are_named() {
        for (json, expected) in [
            (r#"{"createRuntime":[{"path":"x"}]}"#, "hooks.createRuntime[0].path"),
            (r#"{"poststop":[{"path":"/x"},{"path":"/x","timeout":0}]}"#, "hooks.poststop[1].timeout: 0"),
        ] {
            let e =
                HooksPlan::new(Some(&serde_json::from_str(json).unwrap()), &BTreeMap::new()).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
    }

    #[test]
    fn output_goes_to_absolute_paths_only() {
        let plan = |name: &str, file: &str| HooksPlan::new(None, &BTreeMap::from([(name.to_owned(), file.to_owned())]));
        assert_eq!(plan(STDOUT, "/o").unwrap().output, OutputPlan { stdout: Some("/o".into()), stderr: None });
        for file in ["", "o"] {
            let e = plan(STDERR, file).unwrap_err().to_string();
            assert!(e.starts_with("annotations[\"run.oci.hooks.stderr\"]: "), "{e}");
        }
    }

    // Forking needs a process with one thread, which the test harness is not; effects are tested in runtime-tests/tests/hooks.rs.
    #[test]
    fn arguments_default_to_the_path() {
        let hooks = serde_json::from_str(r#"{"poststart":[{"path":"/bin/x"}]}"#).unwrap();
        let plan = HooksPlan::new(Some(&hooks), &BTreeMap::new()).unwrap();
        assert_eq!(plan.poststart[0].args, ["/bin/x"]);
    }
}
