//! `linux.netDevices`: devices of the runtime's network namespace go into the container's, with their addresses, and come up there.
//!
//! The parent does it when the child says that it has its network namespace: it needs rights over both. Nobody brings them back when the
//! container has ended (config-linux.md, "Namespace Lifecycle and Container Termination"): with the namespace the kernel moves a physical device to
//! the machine's first one and destroys a virtual one. A `create` that fails after the move does bring them back.

use crate::create::own_namespace;
use crate::error::{Doing, Error, Result, config};
use crate::log;
use crate::namespaces::{NamespacePlan, kind};
use rrt_oci::Linux;
use rrt_sys::netlink::{Address, Link, NAME_MAX, Netlink};
use rrt_sys::process::SingleThreaded;
use rrt_sys::{OFlags, errno, namespace, path};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// One device to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDevicePlan {
    /// Where config.json names it, for errors.
    pub property: String,
    /// Its name in the runtime's namespace.
    pub name: String,
    /// Its name in the container's; with `%d` for a number that the kernel finds.
    pub new_name: String,
}

/// Plans `linux.netDevices`, by name.
///
/// # Errors
/// Names that no device can have, one name for two devices, no network namespace of the container's own.
pub fn plan(linux: &Linux, namespaces: &NamespacePlan) -> Result<Vec<NetDevicePlan>> {
    let mut devices: Vec<NetDevicePlan> = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let property = format!("linux.netDevices[{name:?}]");
        namespaces.require(kind::NETWORK, &property)?;
        let new_name = device.name().clone().filter(|n| !n.is_empty()).unwrap_or_else(|| name.clone());
        check_name(name, &property, false)?;
        check_name(&new_name, &format!("{property}.name"), true)?;
        devices.push(NetDevicePlan { property, name: name.clone(), new_name });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    for (i, device) in devices.iter().enumerate() {
        let same = |d: &&NetDevicePlan| d.new_name == device.new_name && !is_template(&d.new_name);
        if let Some(other) = devices[..i].iter().find(same) {
            let problem = format!("{:?} is the name of {} as well", device.new_name, other.property);
            return Err(config(format!("{}.name", device.property), problem));
        }
    }
    Ok(devices)
}

fn is_template(name: &str) -> bool {
    name.contains('%')
}

/// The kernel's own rules (dev_valid_name in net/core/dev.c).
fn check_name(name: &str, property: &str, template: bool) -> Result<()> {
    let number = if template { name.strip_suffix("%d").unwrap_or(name) } else { name };
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_ascii_whitespace() || c == '\x0b';
    if name.is_empty() || name.len() > NAME_MAX || matches!(name, "." | "..") || number.contains(bad) {
        let end = if template { ", or end in %d" } else { "" };
        let rule = format!("1 to {NAME_MAX} bytes without '/', ':', '%' and white space, not \".\" or \"..\"{end}");
        return Err(config(property, format!("{name:?} is not a name of a network device ({rule})")));
    }
    Ok(())
}

/// A device that was found here and is to go, or has gone.
#[derive(Debug)]
struct Device {
    plan: NetDevicePlan,
    link: Link,
    addresses: Vec<Address>,
    /// Its number in the container's namespace.
    moved: Option<i32>,
}

/// Devices that have moved, for a `create` that fails later. Its sockets keep the container's network namespace alive, and so the devices.
#[derive(Debug)]
pub struct Moved {
    here: Netlink,
    there: Netlink,
    own: OwnedFd,
    devices: Vec<Device>,
}

/// Parent: moves the devices into the network namespace of process `pid`.
///
/// # Errors
/// All devices are then where they were.
pub fn apply(token: &SingleThreaded, devices: &[NetDevicePlan], pid: i32) -> Result<Moved> {
    let doing = || "linux.netDevices: reach the container's network namespace".to_string();
    let here = Netlink::open().doing(doing)?;
    let target = path::open(Path::new(&format!("/proc/{pid}/ns/net")), OFlags::RDONLY).doing(doing)?;
    let own = own_namespace(kind::NETWORK).doing(doing)?;
    let there = open_there(token, &target, &own).doing(doing)?;
    let mut moved = Moved { here, there, own, devices: Vec::new() };
    for plan in devices {
        moved.devices.push(moved.find(plan)?);
    }
    for i in 0..moved.devices.len() {
        if let Err(e) = moved.move_one(i, &target) {
            moved.give_back();
            return Err(e);
        }
    }
    Ok(moved)
}

/// A socket in the container's namespace, made on a short visit.
fn open_there(token: &SingleThreaded, target: &OwnedFd, own: &OwnedFd) -> rrt_sys::Result<Netlink> {
    namespace::join(token, target.as_fd(), kind::NETWORK)?;
    let made = Netlink::open();
    namespace::join(token, own.as_fd(), kind::NETWORK)?;
    made
}

/// Looks for a device in the runtime's namespace; what can be known of its move is checked.
pub fn look(plan: &NetDevicePlan) -> Result<()> {
    /// `ARPHRD_LOOPBACK`
    const LOOPBACK: &str = "772";
    find(&Netlink::open().doing(|| plan.property.clone())?, plan)?;
    // Every network namespace has its own, of this name.
    let kind = std::fs::read_to_string(Path::new("/sys/class/net").join(&plan.name).join("type"));
    if kind.is_ok_and(|kind| kind.trim() == LOOPBACK) {
        return Err(config(&plan.property, "loopback devices cannot leave their namespace"));
    }
    match plan.new_name.as_str() {
        "lo" => Err(exists(plan)),
        _ => Ok(()),
    }
}

fn find(here: &Netlink, plan: &NetDevicePlan) -> Result<Link> {
    here.link(&plan.name).map_err(|source| match source.errno() {
        errno::ENODEV => {
            config(&plan.property, format!("the runtime's network namespace has no device {:?}", plan.name))
        }
        _ => Error::System { doing: format!("{}: look for it", plan.property), source },
    })
}

fn exists(plan: &NetDevicePlan) -> Error {
    let problem = format!("{:?} exists in the container's network namespace; choose another", plan.new_name);
    config(format!("{}.name", plan.property), problem)
}

impl Moved {
    fn find(&self, plan: &NetDevicePlan) -> Result<Device> {
        let link = find(&self.here, plan)?;
        // The kernel looks at it only after the move.
        if !is_template(&plan.new_name) {
            match self.there.link(&plan.new_name) {
                Err(e) if e.is(errno::ENODEV) => {}
                found => {
                    found.doing(|| format!("{}: look for {:?} in the container", plan.property, plan.new_name))?;
                    return Err(exists(plan));
                }
            }
        }
        // Before the move, which the kernel begins by taking the device down: that costs its IPv6 addresses, and the move the others.
        let mut addresses =
            self.here.addresses(link.index).doing(|| format!("{}: read its addresses", plan.property))?;
        // What a person or an engine gave it; the rest was the old network's (config-linux.md, "Network Devices").
        addresses.retain(Address::is_permanent_and_global);
        Ok(Device { plan: plan.clone(), link, addresses, moved: None })
    }

    fn move_one(&mut self, i: usize, target: &OwnedFd) -> Result<()> {
        let (device, there) = (&mut self.devices[i], &self.there);
        let plan = &device.plan;
        let template = is_template(&plan.new_name);
        // Its number may be another one there, so it needs a name by which it is found; one from a template is not known before.
        let first = if template { format!("rrt{}", std::process::id()) } else { plan.new_name.clone() };
        self.here.move_link(device.link.index, target.as_fd(), &first).doing(|| {
            let hint = "loopback devices and some of the kernel's own cannot leave their namespace";
            format!("{}: move it into the container's network namespace ({hint})", plan.property)
        })?;
        let index = there.link(&first).doing(|| format!("{}: find it in the container", plan.property))?.index;
        device.moved = Some(index);
        if template {
            let doing = || format!("{}.name: rename it to {:?}", plan.property, plan.new_name);
            there.rename(index, &plan.new_name).doing(doing)?;
        }
        for address in &device.addresses {
            there.add_address(index, address).doing(|| format!("{}: keep its address {address}", plan.property))?;
        }
        there.set_up(index).doing(|| format!("{}: bring it up", plan.property))
    }

    /// Brings back what has moved, as it was; what fails is logged, for there is another error to report.
    pub fn give_back(&self) {
        for device in self.devices.iter().rev() {
            let Some(index) = device.moved else { continue };
            if let Err(e) = self.give_one_back(device, index) {
                log::warn(format!("{}: it was moved and could not be brought back: {e}", device.plan.property));
            }
        }
    }

    fn give_one_back(&self, device: &Device, index: i32) -> rrt_sys::Result<()> {
        self.there.move_link(index, self.own.as_fd(), &device.plan.name)?;
        let index = self.here.link(&device.plan.name)?.index;
        for address in &device.addresses {
            self.here.add_address(index, address)?;
        }
        if device.link.up { self.here.set_up(index) } else { Ok(()) }
    }
}

impl std::fmt::Display for NetDevicePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "network device {} -> {}, with its permanent global addresses, up", self.name, self.new_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(devices: &str) -> Result<Vec<NetDevicePlan>> {
        let linux = format!(r#"{{"namespaces":[{{"type":"mount"}},{{"type":"network"}}],"netDevices":{devices}}}"#);
        let linux: Linux = serde_json::from_str(&linux).unwrap();
        plan(&linux, &NamespacePlan::new(&linux).unwrap())
    }

    #[test]
    fn the_name_is_kept_unless_another_is_given() {
        let devices = planned(r#"{"eth1":{"name":"net%d"},"eth0":{},"eth2":{"name":""}}"#).unwrap();
        let names: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.new_name.as_str())).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "net%d"), ("eth2", "eth2")]);
        assert!(planned(r#"{"a":{"name":"x%d"},"b":{"name":"x%d"}}"#).is_ok());
    }

    #[test]
    fn bad_devices_are_named() {
        for (json, expected) in [
            (r#"{"eth/0":{}}"#, r#"linux.netDevices["eth/0"]: "eth/0" is not a name"#),
            (r#"{"":{}}"#, "is not a name"),
            (r#"{"eth%d":{}}"#, "is not a name"),
            (r#"{"eth0":{"name":".."}}"#, r#"linux.netDevices["eth0"].name: ".." is not"#),
            (r#"{"eth0":{"name":"a b"}}"#, "is not a name"),
            (r#"{"eth0":{"name":"a%s"}}"#, "is not a name"),
            (r#"{"eth0":{"name":"%d%d"}}"#, "is not a name"),
            (r#"{"eth0":{"name":"1234567890123456"}}"#, "1 to 15 bytes"),
            (
                r#"{"a":{"name":"x"},"b":{"name":"x"}}"#,
                r#"linux.netDevices["b"].name: "x" is the name of linux.netDevices["a"]"#,
            ),
        ] {
            let e = planned(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
        let linux: Linux = serde_json::from_str(r#"{"namespaces":[{"type":"mount"}],"netDevices":{"a":{}}}"#).unwrap();
        let e = plan(&linux, &NamespacePlan::new(&linux).unwrap()).unwrap_err().to_string();
        assert!(e.contains("needs a network namespace"), "{e}");
    }
}
