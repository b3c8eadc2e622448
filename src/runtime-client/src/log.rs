//! The runtime's log: one JSON object a line (contract A.8).

use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The message of the last error after offset `from`. A line that is not JSON is passed over: it must not hide the others.
pub(crate) fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.rfind(|line| line.level == "error").map(|line| line.msg.trim().to_owned())
}

/// What may be the reason when nothing was logged: there is no room for it.
pub(crate) fn why_silent(path: &Path) -> String {
    let full = |stat: &rustix::fs::StatVfs| stat.f_bavail == 0 || (stat.f_files > 0 && stat.f_favail == 0);
    match path.parent().map(rustix::fs::statvfs) {
        Some(Ok(stat)) if full(&stat) => {
            format!(", and {} could not take one: No space left on device", path.display())
        }
        _ => String::new(),
    }
}
