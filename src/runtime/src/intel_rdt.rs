//! `linux.intelRdt`: a share of the processor's cache and memory bandwidth, by the resctrl file system (the kernel's
//! Documentation/filesystems/resctrl.rst, runtime-spec config-linux.md "IntelRdt").
//!
//! A directory of it is a class of service (CLOS): `schemata` says what the class gets, `tasks` who is in it. The parent does all of it: the
//! directory before the process exists, its pid right after the clone; what the process makes later is in the class by inheritance.

use crate::error::{Doing, Error, Result, config};
use rrt_cgroups::{BandwidthInfo, CacheInfo, CmtStats, IntelRdt, MbmStats};
use rrt_oci::LinuxIntelRdt;
use rrt_sys::{OFlags, path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `linux.intelRdt`, settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdtPlan {
    /// The class: `closID`, `/` for the default one, or the container's id.
    pub class: String,
    /// The class is the container's own: `closID` is not given.
    pub own: bool,
    /// Lines for the class' `schemata`, in the order they are written.
    pub schemata: Vec<String>,
    /// How many of the first lines are from l3CacheSchema and memBwSchema, which a class that is there must have already.
    pub compared: usize,
    /// The name of the monitoring group, with `enableMonitoring`.
    pub monitoring: Option<String>,
}

/// What the state keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedIntelRdt {
    /// Where resctrl is mounted.
    root: PathBuf,
    /// The class' directory.
    class: PathBuf,
    /// Whether it goes with the container.
    remove: bool,
    /// The monitoring group's directory.
    monitoring: Option<PathBuf>,
}

impl IntelRdtPlan {
    /// Plans `linux.intelRdt` of the container `id`.
    ///
    /// # Errors
    /// A class that is no name, a schema that is not one line of its kind.
    pub fn new(rdt: &LinuxIntelRdt, id: &str) -> Result<IntelRdtPlan> {
        let class = rdt.clos_id().clone().filter(|c| !c.is_empty());
        if let Some(class) = &class
            && class != "/"
            && (class == "." || class == ".." || class.contains(['/', '\n', '\0']))
        {
            let rule = "the name of a directory of resctrl, or \"/\" for its root";
            return Err(config("linux.intelRdt.closID", format!("{class:?} is not {rule}")));
        }
        let mut schemata = Vec::new();
        for (schema, name, start) in
            [(rdt.l3_cache_schema(), "l3CacheSchema", "L3"), (rdt.mem_bw_schema(), "memBwSchema", "MB:")]
        {
            let Some(schema) = schema.as_ref().filter(|s| !s.is_empty()) else { continue };
            check_line(schema, &format!("linux.intelRdt.{name}"), start)?;
            schemata.push(schema.clone());
        }
        let compared = schemata.len();
        for (i, line) in rdt.schemata().iter().flatten().enumerate() {
            check_line(line, &format!("linux.intelRdt.schemata[{i}]"), "")?;
            schemata.push(line.clone());
        }
        let monitoring = rdt.enable_monitoring().unwrap_or(false).then(|| id.to_string());
        Ok(IntelRdtPlan {
            own: class.is_none(),
            class: class.unwrap_or_else(|| id.into()),
            schemata,
            compared,
            monitoring,
        })
    }

    /// Parent: finds resctrl, and checks what is there against the plan. Nothing is made yet, so that the state can name it first.
    pub fn locate(&self) -> Result<SavedIntelRdt> {
        let root = root()?.ok_or_else(|| {
            let cure = "it needs a processor with Intel RDT or AMD QoS, CONFIG_X86_CPU_RESCTRL, and: \
                        mount -t resctrl resctrl /sys/fs/resctrl";
            config("linux.intelRdt", format!("the resctrl file system is not mounted on this host ({cure})"))
        })?;
        self.locate_below(root)
    }

    fn locate_below(&self, root: PathBuf) -> Result<SavedIntelRdt> {
        let class = if self.class == "/" { root.clone() } else { root.join(&self.class) };
        let there = class.is_dir();
        if !there && !self.own && self.schemata.is_empty() {
            let problem =
                format!("the class {:?} does not exist; make it, or give a schema for it to be made with", self.class);
            return Err(config("linux.intelRdt.closID", problem));
        }
        for (i, line) in self.schemata.iter().enumerate() {
            let property = self.property_of(i);
            let info = line.split(':').next().unwrap_or_default().trim();
            if i < self.compared && !root.join("info").join(info).is_dir() {
                return Err(config(property, format!("{info:?} is not a resource of this machine ({root:?}/info)")));
            }
            if i < self.compared && there && !self.own {
                self.compare(line, &class, property)?;
            }
        }
        if self.monitoring.is_some() && !root.join("info/L3_MON").is_dir() {
            let problem = format!("this machine cannot monitor ({root:?}/info has no L3_MON)");
            return Err(config("linux.intelRdt.enableMonitoring", problem));
        }
        let monitoring = self.monitoring.as_ref().map(|id| class.join("mon_groups").join(id));
        Ok(SavedIntelRdt { remove: self.own && !there, root, class, monitoring })
    }

    fn property_of(&self, line: usize) -> &'static str {
        match self.schemata.get(line) {
            _ if line >= self.compared => "linux.intelRdt.schemata",
            Some(l) if l.starts_with("MB:") => "linux.intelRdt.memBwSchema",
            _ => "linux.intelRdt.l3CacheSchema",
        }
    }

    /// A class that others have set up must have what is asked for already: setting it would change it for them.
    fn compare(&self, line: &str, class: &Path, property: &str) -> Result<()> {
        let file = class.join("schemata");
        let text = fs::read_to_string(&file).doing(|| format!("{property}: read {file:?}"))?;
        let differs = match values(line) {
            Some((resource, wanted)) => {
                let has =
                    text.lines().filter_map(values).find(|(r, _)| *r == resource).map(|(_, v)| v).unwrap_or_default();
                wanted.iter().any(|(domain, value)| has.get(domain) != Some(value))
            }
            None => return Err(config(property, format!("{line:?} is not a schema as \"L3:0=ff;1=c0\""))),
        };
        match differs {
            true => Err(config(
                property,
                format!("the class {:?} exists and has {:?}, not {line:?}", self.class, text.trim()),
            )),
            false => Ok(()),
        }
    }
}

/// Resource and values by cache, of a line as `L3:0=ff;1=c0`; numbers are hexadecimal but for bandwidth, and have no fixed width.
fn values(line: &str) -> Option<(&str, BTreeMap<u32, u64>)> {
    let (resource, list) = line.trim().split_once(':')?;
    let radix = if resource.trim() == "MB" { 10 } else { 16 };
    let value = |pair: &str| {
        let (domain, value) = pair.split_once('=')?;
        Some((domain.trim().parse().ok()?, u64::from_str_radix(value.trim(), radix).ok()?))
    };
    let pairs: Option<BTreeMap<u32, u64>> = list.split(';').filter(|p| !p.trim().is_empty()).map(value).collect();
    Some((resource.trim(), pairs?))
}

fn check_line(line: &str, property: &str, start: &str) -> Result<()> {
    if line.contains('\n') || line.is_empty() || !line.starts_with(start) {
        let rule = if start.is_empty() { "one line".into() } else { format!("one line that begins with {start:?}") };
        return Err(config(property, format!("{line:?} is not {rule}")));
    }
    Ok(())
}

/// Where resctrl is mounted: at its usual place, or where mountinfo says.
fn root() -> Result<Option<PathBuf>> {
    /// `RDTGROUP_SUPER_MAGIC`
    const MAGIC: u64 = 0x0765_5821;
    let usual = Path::new("/sys/fs/resctrl");
    match path::open(usual, OFlags::PATH) {
        Ok(dir) if path::fs_magic(&dir).is_ok_and(|m| m == MAGIC) => return Ok(Some(usual.into())),
        Ok(_) => {}
        // The kernel makes the directory wherever there is something to mount.
        Err(_) => return Ok(None),
    }
    let table = fs::read_to_string("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".into())?;
    let place = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("resctrl ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    Ok(table.lines().find_map(place))
}

impl SavedIntelRdt {
    /// Makes the class and the monitoring group, and writes the schemata.
    pub fn make(&self, plan: &IntelRdtPlan) -> Result<()> {
        self.mkdir(&self.class)?;
        if !plan.schemata.is_empty() {
            self.write("schemata", plan.property_of(0), &plan.schemata)?;
        }
        self.monitoring.as_ref().map_or(Ok(()), |group| self.mkdir(group))
    }

    fn mkdir(&self, dir: &Path) -> Result<()> {
        match fs::create_dir(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                Err(self.failed(format!("linux.intelRdt: make {dir:?}"), e))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, file: &str, property: &str, lines: &[String]) -> Result<()> {
        let file = self.class.join(file);
        let text = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        fs::write(&file, &text).map_err(|e| self.failed(format!("{property}: write {text:?} to {file:?}"), e))
    }

    /// The kernel says more than an errno can, in a file.
    fn failed(&self, doing: String, source: std::io::Error) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let said =
            if status.trim().is_empty() { String::new() } else { format!(" (last_cmd_status: {})", status.trim()) };
        Error::Io { doing: doing + &said, source }
    }

    /// Puts a process, and all that it will make, into the class and the monitoring group.
    pub fn add(&self, pid: i32) -> Result<()> {
        for dir in std::iter::once(&self.class).chain(&self.monitoring) {
            let tasks = dir.join("tasks");
            fs::write(&tasks, pid.to_string())
                .map_err(|e| self.failed(format!("linux.intelRdt: write {pid} to {tasks:?}"), e))?;
        }
        Ok(())
    }

    /// Removes what was made for the container; what is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        let own = self.remove.then_some(&self.class);
        for dir in self.monitoring.iter().chain(own) {
            match fs::remove_dir(dir) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(self.failed(format!("linux.intelRdt: remove {dir:?}"), e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `update --l3-cache-schema --mem-bw-schema`.
    pub fn update(&self, l3: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        for (schema, flag, start) in [(l3, "--l3-cache-schema", "L3"), (bandwidth, "--mem-bw-schema", "MB:")] {
            let Some(schema) = schema else { continue };
            check_line(schema, flag, start)?;
            self.write("schemata", flag, &[schema.to_string()])?;
        }
        Ok(())
    }

    /// For `events`: what the machine and the class have, and what was measured.
    pub fn stats(&self) -> Result<IntelRdt> {
        let text = |file: PathBuf| fs::read_to_string(&file).doing(|| format!("read {file:?}"));
        let (all, own) = (text(self.root.join("schemata"))?, text(self.class.join("schemata"))?);
        // The last line that has it, as in runc.
        let line =
            |text: &str, what: &str| text.lines().rfind(|l| l.contains(what)).unwrap_or_default().trim().to_string();
        let mut stats = IntelRdt { schemata: own.trim().lines().map(str::to_string).collect(), ..IntelRdt::default() };
        let info = self.root.join("info");
        let number = |dir: &str, file: &str| number(&info.join(dir).join(file));
        if info.join("L3").is_dir() {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: text(info.join("L3/cbm_mask"))?.trim().into(),
                min_cbm_bits: number("L3", "min_cbm_bits"),
                num_closids: number("L3", "num_closids"),
            });
            (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line(&all, "L3"), line(&own, "L3"));
        }
        if info.join("MB").is_dir() {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number("MB", "bandwidth_gran"),
                delay_linear: number("MB", "delay_linear"),
                min_bandwidth: number("MB", "min_bandwidth"),
                num_closids: number("MB", "num_closids"),
            });
            (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line(&all, "MB"), line(&own, "MB"));
        }
        let features = fs::read_to_string(info.join("L3_MON/mon_features")).unwrap_or_default();
        let measures = |name: &str| features.lines().any(|l| l.trim() == name);
        let domains = self.domains();
        if measures("mbm_total_bytes") || measures("mbm_local_bytes") {
            let one = |dir: &PathBuf| MbmStats {
                mbm_total_bytes: self::number(&dir.join("mbm_total_bytes")),
                mbm_local_bytes: self::number(&dir.join("mbm_local_bytes")),
            };
            stats.mbm_stats = Some(domains.iter().map(one).collect());
        }
        if measures("llc_occupancy") {
            let one = |dir: &PathBuf| CmtStats { llc_occupancy: self::number(&dir.join("llc_occupancy")) };
            stats.cmt_stats = Some(domains.iter().map(one).collect());
        }
        Ok(stats)
    }

    /// `mon_data/mon_L3_00` and the like, of the monitoring group or else of the class.
    fn domains(&self) -> Vec<PathBuf> {
        let data = self.monitoring.as_ref().unwrap_or(&self.class).join("mon_data");
        let mut all: Vec<PathBuf> = fs::read_dir(data).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    }
}

/// A number from a file; 0 when it has none, as for a counter that is `Unavailable` at the moment.
fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

impl std::fmt::Display for IntelRdtPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "resctrl class {}", self.class)?;
        for line in &self.schemata {
            write!(f, "  {line}")?;
        }
        if self.monitoring.is_some() { f.write_str("  monitored") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory tree in place of resctrl: no kernel of the test machines has it.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let root = std::env::temp_dir().join(format!("rrt-resctrl-{}-{name}", std::process::id()));
            for dir in ["info/L3", "info/MB", "info/L3_MON", "mon_groups"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for (file, text) in [
                ("info/L3/cbm_mask", "fffff\n"),
                ("info/L3/min_cbm_bits", "1\n"),
                ("info/L3/num_closids", "16\n"),
                ("info/MB/bandwidth_gran", "10\n"),
                ("info/MB/min_bandwidth", "10\n"),
                ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
                ("info/last_cmd_status", "ok\n"),
                ("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"),
            ] {
                fs::write(root.join(file), text).unwrap();
            }
            Fake(root)
        }

        fn class(&self, name: &str, schemata: &str) {
            fs::create_dir_all(self.0.join(name).join("mon_groups")).unwrap();
            fs::write(self.0.join(name).join("schemata"), schemata).unwrap();
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap_or_default()
        }

        fn locate(&self, json: &str) -> Result<(IntelRdtPlan, SavedIntelRdt)> {
            let plan = plan(json)?;
            let saved = plan.locate_below(self.0.clone())?;
            Ok((plan, saved))
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn plan(json: &str) -> Result<IntelRdtPlan> {
        IntelRdtPlan::new(&serde_json::from_str(json).unwrap(), "c1")
    }

    #[test]
    fn a_class_of_the_containers_own_goes_with_it() {
        let fake = Fake::new("own");
        let json = r#"{"l3CacheSchema":"L3:0=ff","memBwSchema":"MB:0=50","schemata":["L2:0=f"]}"#;
        let (plan, saved) = fake.locate(json).unwrap();
        saved.make(&plan).unwrap();
        assert_eq!(fake.text("c1/schemata"), "L3:0=ff\nMB:0=50\nL2:0=f\n");
        saved.add(77).unwrap();
        assert_eq!(fake.text("c1/tasks"), "77");
        saved.update(Some("L3:0=f"), None).unwrap();
        assert_eq!(fake.text("c1/schemata"), "L3:0=f\n");
        // In resctrl files vanish with their directory.
        fs::remove_file(fake.0.join("c1/tasks")).unwrap();
        fs::remove_file(fake.0.join("c1/schemata")).unwrap();
        saved.remove().unwrap();
        assert!(!fake.0.join("c1").exists());
        saved.remove().unwrap();
    }

    #[test]
    fn a_class_that_is_there_stays() {
        let fake = Fake::new("there");
        fake.class("gold", "    L3:0=00ff;1=fffff\n    MB:0= 50;1=100\n");
        // Nothing of it is written when nothing is asked for.
        let (plan, saved) = fake.locate(r#"{"closID":"gold"}"#).unwrap();
        saved.make(&plan).unwrap();
        assert!(fake.text("gold/schemata").starts_with("    L3"));
        saved.remove().unwrap();
        assert!(fake.0.join("gold").is_dir());
        // What is asked for has to be what it has, in whatever width.
        let same = r#"{"closID":"gold","l3CacheSchema":"L3:0=ff","memBwSchema":"MB:0=50"}"#;
        assert!(fake.locate(same).is_ok());
        let e = fake.locate(r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#).unwrap_err().to_string();
        assert!(e.contains("linux.intelRdt.l3CacheSchema: the class \"gold\" exists and has"), "{e}");
        let e = fake.locate(r#"{"closID":"gold","memBwSchema":"MB:0=60"}"#).unwrap_err().to_string();
        assert!(e.contains("linux.intelRdt.memBwSchema"), "{e}");
        // One of the container's name that is somebody else's is used, and stays as well.
        fake.class("c1", "");
        let (_, saved) = fake.locate("{}").unwrap();
        assert!(!saved.remove);
        // A new one with a name is for others, too.
        let (plan, saved) = fake.locate(r#"{"closID":"new","schemata":["MB:0=20"]}"#).unwrap();
        saved.make(&plan).unwrap();
        saved.remove().unwrap();
        assert_eq!(fake.text("new/schemata"), "MB:0=20\n");
        assert_eq!(fake.locate(r#"{"closID":"/"}"#).unwrap().1.class, fake.0);
    }

    #[test]
    fn monitoring_has_a_group_and_numbers() {
        let fake = Fake::new("monitoring");
        fake.class("gold", "L3:0=ff\nMB:0=50\n");
        let (plan, saved) = fake.locate(r#"{"closID":"gold","enableMonitoring":true}"#).unwrap();
        saved.make(&plan).unwrap();
        saved.add(5).unwrap();
        assert_eq!((fake.text("gold/tasks"), fake.text("gold/mon_groups/c1/tasks")), ("5".into(), "5".into()));
        let data = fake.0.join("gold/mon_groups/c1/mon_data/mon_L3_00");
        fs::create_dir_all(&data).unwrap();
        for (file, text) in [("llc_occupancy", "7\n"), ("mbm_total_bytes", "9\n"), ("mbm_local_bytes", "Unavailable\n")]
        {
            fs::write(data.join(file), text).unwrap();
        }
        let json = serde_json::to_value(saved.stats().unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16 },
                "l3_cache_schema_root": "L3:0=fffff;1=fffff", "l3_cache_schema": "L3:0=ff",
                "mem_bw_info": { "bandwidth_gran": 10, "min_bandwidth": 10 },
                "mem_bw_schema_root": "MB:0=100;1=100", "mem_bw_schema": "MB:0=50",
                "schemata": ["L3:0=ff", "MB:0=50"],
                "mbm_stats": [{ "mbm_total_bytes": 9, "mbm_local_bytes": 0 }], "cmt_stats": [{ "llc_occupancy": 7 }],
            })
        );
    }

    #[test]
    fn bad_values_are_named() {
        let fake = Fake::new("bad");
        fs::remove_dir_all(fake.0.join("info/MB")).unwrap();
        fs::remove_dir_all(fake.0.join("info/L3_MON")).unwrap();
        for (json, expected) in [
            (r#"{"closID":".."}"#, "linux.intelRdt.closID: \"..\""),
            (r#"{"closID":"a/b"}"#, "linux.intelRdt.closID: \"a/b\""),
            (r#"{"closID":"gone"}"#, "linux.intelRdt.closID: the class \"gone\" does not exist"),
            (r#"{"l3CacheSchema":"MB:0=1"}"#, "linux.intelRdt.l3CacheSchema: \"MB:0=1\" is not one line that begins"),
            (r#"{"memBwSchema":"0=1"}"#, "linux.intelRdt.memBwSchema: \"0=1\""),
            (r#"{"schemata":["L3:0=1\nMB:0=1"]}"#, "linux.intelRdt.schemata[0]"),
            (r#"{"memBwSchema":"MB:0=10"}"#, "linux.intelRdt.memBwSchema: \"MB\" is not a resource of this machine"),
            (r#"{"enableMonitoring":true}"#, "linux.intelRdt.enableMonitoring: this machine cannot monitor"),
        ] {
            let e = fake.locate(json).unwrap_err().to_string();
            assert!(e.contains(expected), "{json}: {e}");
        }
        let (plan, saved) = fake.locate(r#"{"schemata":["L3:0=1"]}"#).unwrap();
        fs::create_dir_all(fake.0.join("c1/schemata")).unwrap();
        let e = saved.make(&plan).unwrap_err().to_string();
        assert!(e.contains("linux.intelRdt.schemata: write") && e.contains("last_cmd_status: ok"), "{e}");
    }
}
