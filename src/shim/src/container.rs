//! A container: made, started, joined, and taken down by calls of the runtime.

use crate::cgroup::Cgroup;
use crate::error::{Code, Error};
use crate::log;
use crate::mounts;
use crate::oom::Watching;
use crate::process::{Process, State};
use crate::proto::task::{CreateTaskRequest, ExecProcessRequest};
use crate::proto::{CheckpointOptions, Options};
use crate::reaper::Reaper;
use crate::stdio::{ConsoleSocket, Io, Owner, Pipes, Spec};
use rrt_runtime_client::{Bundle, Checkpoint, Create, Failure, Restore, Runtime, Streams, read_pid};
use serde_json::value::RawValue;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::Notify;

/// Where runtimes' states are, by namespace, if the options say nothing else.
const ROOT: &str = "/run/containerd/rrt";
/// The runtime, if the options say nothing else.
pub const PROGRAM: &str = "rrt";

/// See the module.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its first process.
    pub init: Rc<Process>,
    /// Its other processes, by id.
    pub execs: RefCell<HashMap<String, Rc<Process>>>,
    /// Where it is, if there are cgroups.
    pub cgroup: RefCell<Option<Cgroup>>,
    /// Its OOM kills.
    pub oom: RefCell<Option<Watching>>,
    /// Execs that are being started or run.
    pub running_execs: Cell<usize>,
    /// Told when there is one less.
    pub exec_ended: Notify,
    /// The kernel has told of init's end; no exec begins any more.
    pub init_gone: Cell<bool>,
    /// Whether the kernel ends all processes with init.
    pub own_pid_namespace: bool,
    runtime: Runtime,
    options: Options,
    namespace: String,
    mounted: bool,
}

/// What a `Start` that restores needs of its `Create`.
pub struct Pending {
    restore: Restore,
    pipes: Option<(Pipes, Streams)>,
}

/// How the runtime is called for the containers of a namespace.
pub fn runtime(options: &Options, namespace: &str, bundle: &Path) -> Runtime {
    let or = |text: &str, default: &str| PathBuf::from(if text.is_empty() { default } else { text });
    Runtime {
        program: or(&options.binary_name, PROGRAM),
        root: or(&options.root, ROOT).join(namespace),
        log: bundle.join("log.json"),
        systemd_cgroup: options.systemd_cgroup,
    }
}

/// The file in the bundle that `delete` learns the options from, when the shim is gone.
const OPTIONS_FILE: &str = "options.json";

/// Reads what [`Container::create`] has left; without it, the defaults.
pub fn saved_options(bundle: &Path) -> Options {
    let text = std::fs::read(bundle.join(OPTIONS_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn save_options(bundle: &Path, options: &Options) -> Result<(), Error> {
    let path = bundle.join(OPTIONS_FILE);
    let text = serde_json::to_vec(options).map_err(|e| Error::system("options", e))?;
    let mut file = std::fs::File::options();
    let written = file.write(true).create(true).truncate(true).mode(0o600).open(&path);
    written.and_then(|mut file| std::io::Write::write_all(&mut file, &text)).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::Unknown };
        Error { code, ..Error::system(format_args!("write {}", path.display()), e) }
    })
}

impl Container {
    /// Mounts the root file system and makes the container, up to the point where `Start` lets it go. When it fails nothing is left.
    ///
    /// # Errors
    /// What the runtime says, as containerd's shim hands it on.
    pub async fn create(request: &CreateTaskRequest, namespace: &str, reaper: &Rc<Reaper>) -> Result<Container, Error> {
        let options = Options::from_any(request.options.as_ref(), &log::unknown_option).map_err(Error::unknown)?;
        let bundle = PathBuf::from(&request.bundle);
        // We are not in it, as containerd's shim is.
        if !bundle.is_absolute() {
            let message = format!("bundle {:?}: it must be an absolute path", request.bundle);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        save_options(&bundle, &options)?;
        let spec = Spec {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let state = if request.checkpoint.is_empty() { State::Created } else { State::Checkpointed };
        let container = Container {
            id: request.id.clone(),
            init: Rc::new(Process::new(&request.id, "", spec, state)),
            execs: RefCell::default(),
            cgroup: RefCell::new(None),
            oom: RefCell::new(None),
            running_execs: Cell::new(0),
            exec_ended: Notify::new(),
            init_gone: Cell::new(false),
            // A config.json that cannot be read is the runtime's to complain of.
            own_pid_namespace: Bundle::read(&bundle).is_ok_and(|config| config.has_own_pid_namespace()),
            runtime: runtime(&options, namespace, &bundle),
            options,
            namespace: namespace.into(),
            mounted: !request.rootfs.is_empty(),
            bundle,
        };
        let made = container.mount(request).and_then(|()| container.check_id());
        let made = match made {
            Ok(()) if state == State::Checkpointed => container.prepare_restore(request, reaper).await,
            Ok(()) => container.make(reaper).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            container.init.io.close().await;
            container.unmount().await.unwrap_or_else(crate::log::warn);
            return Err(error);
        }
        Ok(container)
    }

    /// It is part of file names.
    fn check_id(&self) -> Result<(), Error> {
        check_id(&self.id)
    }

    fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    fn mount(&self, request: &CreateTaskRequest) -> Result<(), Error> {
        if !self.mounted {
            return Ok(());
        }
        let rootfs = self.rootfs();
        match DirBuilder::new().mode(0o711).create(&rootfs) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::system("mkdir rootfs", e)),
            _ => {}
        }
        mounts::mount_all(&request.rootfs, &rootfs)
            .map_err(|e| Error { message: format!("failed to mount rootfs component: {e}"), ..e })
    }

    async fn unmount(&self) -> Result<(), Error> {
        if self.mounted { mounts::unmount_all(&self.rootfs()).await } else { Ok(()) }
    }

    fn owner(&self, id: &str) -> Owner {
        let (uid, gid) = (self.options.io_uid, self.options.io_gid);
        Owner { id: id.into(), namespace: self.namespace.clone(), uid, gid }
    }

    fn pid_file(&self) -> PathBuf {
        self.bundle.join("init.pid")
    }

    async fn make(&self, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let flags = Create { no_pivot: self.options.no_pivot_root, no_new_keyring: self.options.no_new_keyring };
        let pid_file = self.pid_file();
        let call = |console: Option<&Path>, streams| {
            self.runtime.create(&self.id, &self.bundle, &pid_file, &flags, console, streams)
        };
        let run = Run { what: "OCI runtime create failed", reaper, bundle: &self.bundle, owner: self.owner(&self.id) };
        run.process(&self.init, None, call).await?;
        let pid =
            read_pid(&pid_file).map_err(|e| Error::runtime("failed to retrieve OCI runtime container pid", &e))?;
        self.init.pid.set(pid);
        *self.cgroup.borrow_mut() = Cgroup::of(pid);
        Ok(())
    }

    async fn prepare_restore(&self, request: &CreateTaskRequest, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let some = |text: &str| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
        let restore = Restore {
            image_path: request.checkpoint.clone().into(),
            work_path: some(&self.options.criu_work_path).unwrap_or_else(|| self.bundle.join("work")),
            parent_path: some(&request.parent_checkpoint),
            no_pivot: self.options.no_pivot_root,
        };
        let spec = &self.init.spec;
        let pipes = match spec.terminal {
            true => None,
            false => Some(Pipes::open(spec, &self.owner(&self.id), reaper).await?),
        };
        *self.init.pending.borrow_mut() = Some(Pending { restore, pipes });
        Ok(())
    }

    /// Lets init go, or restores it.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn start(&self, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let pending = self.init.pending.take();
        let Some(Pending { restore, pipes }) = pending else {
            let started = reaper.run(self.runtime.simple("start", &self.id)).await;
            started.map_err(|e| Error::runtime("OCI runtime start failed", &e))?;
            return Ok(());
        };
        let pid_file = self.pid_file();
        let call = |console: Option<&Path>, streams| {
            self.runtime.restore(&self.id, &self.bundle, &pid_file, &restore, console, streams)
        };
        let run = Run { what: "OCI runtime restore failed", reaper, bundle: &self.bundle, owner: self.owner(&self.id) };
        run.process(&self.init, pipes, call).await?;
        let pid =
            read_pid(&pid_file).map_err(|e| Error::runtime("failed to retrieve OCI runtime container pid", &e))?;
        self.init.pid.set(pid);
        *self.cgroup.borrow_mut() = Cgroup::of(pid);
        Ok(())
    }

    /// Takes the container down; init has ended, or was never let go.
    ///
    /// # Errors
    /// The runtime's, or the root file system cannot be unmounted.
    pub async fn delete(&self, reaper: &Rc<Reaper>) -> Result<(), Error> {
        self.init.io.close().await;
        let deleted = match reaper.run(self.runtime.delete(&self.id, false)).await {
            // A checkpoint leaves nothing, nor does a restore that never was.
            Err(e) if !e.is_unknown_container() => Err(Error::runtime("failed to delete task", &e)),
            _ => Ok(()),
        };
        let unmounted = self.unmount().await;
        deleted?;
        unmounted.map_err(|e| Error { message: format!("failed rootfs umount: {e}"), ..e })
    }

    /// Starts an exec that was described.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn start_exec(&self, exec: &Process, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let file = |suffix: &str| self.bundle.join(format!("{}{suffix}", exec.exec));
        let (pid_file, document, log) = (file(".pid"), file(".process.json"), file(".log.json"));
        let result = async {
            std::fs::write(&document, &*exec.document.borrow())
                .map_err(|e| Error::system(format_args!("write {}", document.display()), e))?;
            let runtime = self.runtime.with_log(log.clone());
            let call = |console: Option<&Path>, streams| runtime.exec(&self.id, &document, &pid_file, console, streams);
            let owner = self.owner(&exec.exec);
            let run = Run { what: "OCI runtime exec failed", reaper, bundle: &self.bundle, owner };
            run.process(exec, None, call).await?;
            read_pid(&pid_file).map_err(|e| Error::runtime("failed to retrieve OCI runtime exec pid", &e))
        };
        let result = result.await;
        for path in [&document, &log, &pid_file] {
            let _ = std::fs::remove_file(path);
        }
        exec.document.take();
        exec.pid.set(result?);
        Ok(())
    }

    /// Notes an exec, which `Start` is going to start.
    ///
    /// # Errors
    /// The document is none, or the id cannot be one.
    pub fn describe_exec(&self, request: ExecProcessRequest) -> Result<Process, Error> {
        check_id(&request.exec_id)?;
        let document = request.spec.map(|any| any.value).unwrap_or_default();
        let document = with_terminal(&document, request.terminal)
            .map_err(|e| Error::unknown(format!("the exec's process document: {e}")))?;
        let spec =
            Spec { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
        let exec = Process::new(&self.id, &request.exec_id, spec, State::Created);
        *exec.document.borrow_mut() = document;
        Ok(exec)
    }

    /// Sends a signal to init, or to all.
    ///
    /// # Errors
    /// NotFound when there is nobody to get it.
    pub async fn kill(&self, signal: u32, all: bool, reaper: &Rc<Reaper>) -> Result<(), Error> {
        match reaper.run(self.runtime.kill(&self.id, signal, all)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_gone() => Err(Error::new(Code::NotFound, "process already finished: not found")),
            Err(e) if e.is_unknown_container() => Err(Error::new(Code::NotFound, "no such container: not found")),
            Err(e) => Err(Error::runtime("unknown error after kill", &e)),
        }
    }

    /// `pause` or `resume`.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn freeze(&self, command: &'static str, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let done = reaper.run(self.runtime.simple(command, &self.id)).await;
        done.map(drop).map_err(|e| Error::runtime(&format!("OCI runtime {command} failed"), &e))
    }

    /// Changes limits; `resources` is JSON.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn update(&self, resources: &[u8], reaper: &Rc<Reaper>) -> Result<(), Error> {
        let done = reaper.run(self.runtime.update(&self.id, resources)).await;
        done.map(drop).map_err(|e| Error::runtime("OCI runtime update failed", &e))
    }

    /// Pids of all processes.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn pids(&self, reaper: &Rc<Reaper>) -> Result<Vec<u32>, Failure> {
        rrt_runtime_client::pids(&reaper.run(self.runtime.ps(&self.id)).await?)
    }

    /// Saves the container into `path`.
    ///
    /// # Errors
    /// What the runtime says; criu's log is kept in the bundle.
    pub async fn checkpoint(&self, path: &str, o: CheckpointOptions, reaper: &Rc<Reaper>) -> Result<(), Error> {
        let own = o.work_path.is_empty();
        let work = if own { self.bundle.join("work/criu-work") } else { o.work_path.into() };
        std::fs::create_dir_all(&work).map_err(|e| Error::system(format_args!("mkdir {}", work.display()), e))?;
        let flags = Checkpoint {
            image_path: path.into(),
            work_path: work.clone(),
            parent_path: Some(o.parent_path.into()).filter(|p: &PathBuf| !p.as_os_str().is_empty()),
            leave_running: !o.exit,
            open_tcp: o.open_tcp,
            external_unix_sockets: o.external_unix_sockets,
            terminal: o.terminal,
            file_locks: o.file_locks,
            empty_namespaces: o.empty_namespaces,
        };
        let done = reaper.run(self.runtime.checkpoint(&self.id, &flags)).await;
        let kept = self.bundle.join("criu-dump.log");
        if done.is_err() {
            let _ = std::fs::copy(work.join("dump.log"), &kept);
        }
        if own {
            let _ = std::fs::remove_dir_all(&work);
        }
        done.map(drop).map_err(|e| {
            let first = e.message.lines().next().unwrap_or_default();
            Error::unknown(format!("{first} path= {}", kept.display()))
        })
    }
}

/// A call of the runtime that makes a process, with its streams.
struct Run<'a> {
    what: &'static str,
    reaper: &'a Rc<Reaper>,
    bundle: &'a Path,
    owner: Owner,
}

impl Run<'_> {
    async fn process(
        &self,
        process: &Process,
        pipes: Option<(Pipes, Streams)>,
        call: impl FnOnce(Option<&Path>, Streams) -> std::io::Result<rrt_runtime_client::Call>,
    ) -> Result<(), Error> {
        let (spec, io): (&Spec, &Io) = (&process.spec, &process.io);
        let failed = |e: Failure| Error::runtime(self.what, &e);
        if spec.terminal {
            let socket = ConsoleSocket::bind(self.bundle, process.id())?;
            self.reaper.run(call(Some(socket.path()), Streams::default())).await.map_err(failed)?;
            return io.connect_console(socket.receive().await?, spec, &self.owner, self.reaper).await;
        }
        let (pipes, streams) = match pipes {
            Some(made) => made,
            None => Pipes::open(spec, &self.owner, self.reaper).await?,
        };
        let ran = self.reaper.run(call(None, streams)).await;
        // Connected in any case, so that a logging program is ended.
        pipes.connect(io)?;
        ran.map(drop).map_err(failed)
    }
}

/// Ids are parts of file names: in the bundle and in the runtime's state.
fn check_id(id: &str) -> Result<(), Error> {
    let good = !id.is_empty() && id != "." && id != ".." && !id.contains(['/', '\0']);
    let message = || format!("id {id:?}: it must be a file's name");
    if good { Ok(()) } else { Err(Error::new(Code::InvalidArgument, message())) }
}

/// The request, not the document, says whether there is a terminal. All else stays as it is written.
fn with_terminal(document: &[u8], terminal: bool) -> Result<Vec<u8>, serde_json::Error> {
    let mut process: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(document)?;
    process.insert("terminal".into(), RawValue::from_string(terminal.to_string())?);
    serde_json::to_vec(&process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_decides_on_the_terminal() {
        let document = with_terminal(br#"{"args":["a"],"terminal":true,"new":{"x":1.0}}"#, false).expect("JSON");
        assert_eq!(String::from_utf8_lossy(&document), r#"{"args":["a"],"new":{"x":1.0},"terminal":false}"#);
        assert!(with_terminal(b"[]", false).is_err());
    }

    #[test]
    fn ids_are_names() {
        assert!(check_id("a.b-c").is_ok());
        for id in ["", ".", "..", "a/b", "a\0"] {
            assert!(check_id(id).is_err_and(|e| e.code == Code::InvalidArgument), "{id:?}");
        }
    }

    #[test]
    fn calls_of_the_runtime_by_the_options() {
        let options = Options { root: "/r".into(), binary_name: "/bin/runc".into(), ..Options::default() };
        let runtime = runtime(&options, "k8s.io", Path::new("/b"));
        assert_eq!(
            (runtime.program, runtime.root, runtime.log),
            ("/bin/runc".into(), "/r/k8s.io".into(), "/b/log.json".into())
        );
        let runtime = super::runtime(&Options::default(), "default", Path::new("/b"));
        assert_eq!((runtime.program, runtime.root), ("rrt".into(), "/run/containerd/rrt/default".into()));
    }

    #[test]
    fn options_survive_on_disk() {
        let dir = std::env::temp_dir().join(format!("rrt-shim-options-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let options = Options { systemd_cgroup: true, binary_name: "x".into(), ..Options::default() };
        save_options(&dir, &options).expect("saved");
        assert_eq!(saved_options(&dir), options);
        // What containerd's own shim writes leaves out empty fields.
        std::fs::write(dir.join(OPTIONS_FILE), r#"{"binary_name":"y","unknown":1}"#).expect("a file");
        assert_eq!(saved_options(&dir).binary_name, "y");
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
