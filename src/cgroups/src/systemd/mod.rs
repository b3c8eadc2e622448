//! The systemd driver: the container's cgroup is that of a unit, which systemd makes and removes at our request.
//!
//! A scope is made around processes that exist. So the order is another than with cgroupfs: init is cloned first and
//! waits, doing nothing; systemd makes the scope with all limits it knows and moves init into it; then what systemd cannot
//! express, or has not told us that it could not set (it reports no write that the kernel refused), is written through the
//! cgroup file system; then init goes on. A scope lives by its processes: whenever the runtime is killed, init dies with it,
//! and systemd takes the scope back by itself.
//!
//! The runtime talks to the manager of the system, or of the user when it is rootless, over its own small D-Bus client
//! ([`bus`]). Every call has a deadline.

mod bus;
mod gvariant;
mod name;
mod properties;
mod unit;
mod value;
mod wire;

pub use bus::BusError;
pub(crate) use name::Kind;
pub(crate) use properties::{properties, round_quotas};
pub(crate) use unit::device_properties;
pub use unit::{PROPERTY_ANNOTATION, Property, UnitPlan};

use crate::Error;
use bus::{Address, Bus};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use value::Value;

/// How long one call to systemd may take, and how long a unit's start or stop: as in runc. systemd may be busy for seconds,
/// while it reads its units again.
const LIMIT: Duration = Duration::from_secs(30);

/// What the plan needs to know of the service manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SystemdFacts {
    /// The number of its version, as 252.
    pub version: u32,
    /// Whether it is a user's.
    pub user: bool,
    /// Its own cgroup, `/` for the system's; units are below it.
    pub control_group: PathBuf,
}

/// What has to be kept of a unit: a part of the container's state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedUnit {
    pub(crate) name: String,
    /// Its manager is a user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) user: bool,
    /// systemd has made it for this container. Before that a unit of this name is somebody else's.
    #[serde(default)]
    pub(crate) started: bool,
    /// The directory by which systemd tracks its processes.
    #[serde(default)]
    pub(crate) dir: PathBuf,
}

/// A connection to a service manager.
#[derive(Debug)]
pub struct Systemd {
    user: bool,
    places: Vec<Address>,
    bus: Bus,
}

impl Systemd {
    /// Connects to the manager of the system, or of the `user` who calls.
    ///
    /// # Errors
    /// [`Error::Systemd`]: the machine was not started by systemd, or its bus cannot be reached.
    pub fn connect(user: bool) -> Result<Systemd, Error> {
        // sd_booted(3)
        if !std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|m| m.is_dir()) {
            return Err(Error::NoSystemd);
        }
        Systemd::connect_to(user, Address::of_manager(user, |name| std::env::var_os(name)), LIMIT)
    }

    fn connect_to(user: bool, places: Vec<Address>, limit: Duration) -> Result<Systemd, Error> {
        let bus = Bus::connect(&places, limit).map_err(|source| Error::Systemd {
            doing: "connect to systemd".into(),
            source,
            hint: if user { NO_USER_BUS } else { "" }.into(),
        })?;
        Ok(Systemd { user, places, bus })
    }

    /// Asks what the plan needs to know, in one exchange.
    ///
    /// # Errors
    /// [`Error::Systemd`]
    pub fn facts(&mut self) -> Result<SystemdFacts, Error> {
        let (version, control_group) = self.ask().map_err(doing("ask systemd for its version", self.user))?;
        let number: String =
            version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let version = number.parse().map_err(|_| Error::Parse { path: "systemd's Version".into(), text: version })?;
        let root = Path::new("/").join(control_group.trim_start_matches('/'));
        Ok(SystemdFacts { version, user: self.user, control_group: root })
    }

    fn ask(&mut self) -> Result<(String, String), BusError> {
        let bus = &mut self.bus;
        let asked = [bus.send_get("Version")?, bus.send_get("ControlGroup")?];
        let mut get = |serial| {
            let answer = bus.answer(serial)?;
            bus.read_answer(&answer, "v", |body| body.variant_string())
        };
        Ok((get(asked[0])?, get(asked[1])?))
    }

    /// Has a unit made, with process `pid` in it if it is a scope, and waits until it is there. `there` says whether the process
    /// has arrived.
    ///
    /// A unit of this name that has failed is forgotten first, and the call repeated; so it is after the connection broke.
    ///
    /// # Errors
    /// [`Error::Systemd`]; nothing was made then, or it ends with the process.
    pub(crate) fn start(&mut self, unit: &UnitPlan, pid: u32, there: impl Fn() -> bool) -> Result<(), Error> {
        let mut properties = unit.values();
        if unit.kind == Kind::Scope {
            properties.push(property("PIDs", Value::Array("u".into(), vec![Value::Uint32(pid)])));
        }
        let arguments = [
            Value::str(&unit.name),
            Value::str("replace"),
            Value::Array("(sv)".into(), properties),
            Value::Array("(sa(sv))".into(), vec![]),
        ];
        let (mut forgotten, mut reconnected) = (false, false);
        loop {
            match self.run_job("StartTransientUnit", &arguments, &there) {
                Ok(None) => return Ok(()),
                Ok(Some(result)) if result == "done" => return Ok(()),
                Ok(Some(result)) => {
                    let _ = self.reset_failed(&unit.name);
                    return Err(Error::Systemd {
                        doing: format!("start the unit {}", unit.name),
                        source: BusError::Refused {
                            name: "JobRemoved".into(),
                            text: format!("the job's result is {result:?}"),
                        },
                        hint: ": see its lines in the journal".into(),
                    });
                }
                Err(BusError::Refused { name, .. }) if name.ends_with(".UnitExists") && (there() || !forgotten) => {
                    // Ours, if the answer was lost with the connection before.
                    if there() {
                        return Ok(());
                    }
                    forgotten = true;
                    let _ = self.reset_failed(&unit.name);
                }
                Err(BusError::Broken(_)) if !reconnected => {
                    reconnected = true;
                    *self = Systemd::connect_to(self.user, self.places.clone(), self.bus.limit)?;
                }
                Err(source) => {
                    let hint = start_hint(&source, unit);
                    return Err(Error::Systemd { doing: format!("start the unit {}", unit.name), source, hint });
                }
            }
        }
    }

    /// Stops a unit, waits for it, and has its failure forgotten. One that is not there is stopped.
    ///
    /// # Errors
    /// [`Error::Systemd`]
    pub(crate) fn stop(&mut self, unit: &str) -> Result<(), Error> {
        let arguments = [Value::str(unit), Value::str("replace")];
        let stopped = match self.run_job("StopUnit", &arguments, || false) {
            Err(BusError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            // Whatever the result, its processes were killed before, and its cgroup is looked at after.
            done => done.map(drop),
        };
        let stopped = stopped.and_then(|()| self.reset_failed(unit));
        stopped.map_err(doing(&format!("stop the unit {unit}"), self.user))
    }

    /// As [`Systemd::reset_failed`], with an error for people.
    ///
    /// # Errors
    /// [`Error::Systemd`]
    pub(crate) fn forget(&mut self, unit: &str) -> Result<(), Error> {
        self.reset_failed(unit).map_err(doing(&format!("reset the unit {unit}"), self.user))
    }

    /// Has systemd forget that a unit has failed, which lets it forget the unit.
    pub(crate) fn reset_failed(&mut self, unit: &str) -> Result<(), BusError> {
        match self.manager("ResetFailedUnit", &[Value::str(unit)]) {
            Err(BusError::Refused { .. }) | Ok(_) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Changes a unit's properties until the next boot.
    ///
    /// # Errors
    /// [`Error::Systemd`]
    pub(crate) fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<(), Error> {
        let values = properties.iter().map(Property::value).collect();
        let arguments = [Value::str(unit), Value::Bool(true), Value::Array("(sv)".into(), values)];
        let done = self.manager("SetUnitProperties", &arguments);
        done.map(drop).map_err(doing(&format!("set the properties of the unit {unit}"), self.user))
    }

    /// Has a process moved into a unit's cgroup, or into `below` it (absolute, `/` for its own).
    ///
    /// # Errors
    /// [`Error::Systemd`]
    pub(crate) fn attach(&mut self, unit: &str, below: &str, pid: u32) -> Result<(), Error> {
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid)]);
        let done = self.manager("AttachProcessesToUnit", &[Value::str(unit), Value::str(below), pids]);
        done.map(drop).map_err(doing(&format!("move the process into the unit {unit}"), self.user))
    }

    fn manager(&mut self, member: &str, arguments: &[Value]) -> Result<wire::Message, BusError> {
        let serial = self.bus.send_to_manager(member, arguments)?;
        self.bus.answer(serial)
    }

    /// Calls a method that makes a job, and waits for the job's end.
    fn run_job(
        &mut self,
        member: &str,
        arguments: &[Value],
        there: impl Fn() -> bool,
    ) -> Result<Option<String>, BusError> {
        // Before the call: the job may have ended when its answer comes.
        let watching = self.bus.watch_jobs()?;
        let serial = self.bus.send_to_manager(member, arguments)?;
        if let Some(watching) = watching {
            self.bus.answer(watching)?;
        }
        let answer = self.bus.answer(serial)?;
        let job = self.bus.read_answer(&answer, "o", |body| body.string())?;
        self.bus.job(&job, there)
    }
}

const NO_USER_BUS: &str = ": without root, limits need a systemd session of the user: log in, or `loginctl enable-linger`, \
                           install dbus-user-session, and set XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS";

fn doing(doing: &str, user: bool) -> impl FnOnce(BusError) -> Error {
    let doing = doing.to_owned();
    move |source| {
        let hint = if user && matches!(source, BusError::Unreachable(_)) { NO_USER_BUS } else { "" };
        Error::Systemd { doing, source, hint: hint.into() }
    }
}

fn start_hint(error: &BusError, unit: &UnitPlan) -> Cow<'static, str> {
    let BusError::Refused { name, text } = error else { return "".into() };
    if name.ends_with(".UnitExists") {
        return ": another container or service uses this unit; stop it, or give another linux.cgroupsPath".into();
    }
    if name.ends_with(".AccessDenied") || name.ends_with("AuthorizationRequired") {
        return ": systemd makes units for root only, and for users those of their own session".into();
    }
    // systemd names the property that it does not know or whose value it does not take, but not one of another type.
    let untyped = text.contains("Unexpected message contents");
    let named = |property: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == property);
    let suspects: Vec<String> = unit
        .annotated()
        .filter(|(_, property)| untyped || named(&property.name))
        .map(|(annotation, property)| match untyped {
            true => format!("{PROPERTY_ANNOTATION}{annotation} (of type {:?})", property.value.signature()),
            false => format!("{PROPERTY_ANNOTATION}{annotation}"),
        })
        .collect();
    match suspects.is_empty() {
        true => "".into(),
        false => format!(": see the annotation {}, and org.freedesktop.systemd1(5)", suspects.join(", ")).into(),
    }
}

fn property(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::str(name), Value::Variant(Box::new(value))])
}

#[cfg(test)]
mod tests;
