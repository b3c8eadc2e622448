//! Helpers of this crate's unit tests.

use crate::dir::Dir;
use crate::{Access, DeviceKind, DeviceRule};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A small deterministic generator (xorshift64*), so that a failing case is the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    /// Small numbers, so that rules and devices meet often; now and then one that needs all 32 bits.
    fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => u32::MAX,
            n => (n % 4) as u32,
        }
    }

    /// A use of a device: kind, major, minor, access bits (never none).
    pub(crate) fn device(&mut self) -> (DeviceKind, u32, u32, u8) {
        let kind = if self.below(2) == 0 { DeviceKind::Char } else { DeviceKind::Block };
        (kind, self.number(), self.number(), 1 + self.below(7) as u8)
    }
}

/// Up to nine rules.
pub(crate) fn random_rules(random: &mut Random) -> Vec<DeviceRule> {
    let accesses = [Access::ALL, Access::READ, Access::WRITE, Access::MKNOD, Access::ALL];
    (0..random.below(10))
        .map(|_| DeviceRule {
            allow: random.below(3) != 0,
            kind: [DeviceKind::Char, DeviceKind::Block, DeviceKind::All][random.below(3) as usize],
            major: (random.below(4) != 0).then(|| random.number()),
            minor: (random.below(3) != 0).then(|| random.number()),
            access: accesses[random.below(5) as usize],
        })
        .collect()
}

/// A directory of ordinary files in the place of a cgroup, for what only reads and writes files.
pub(crate) struct FakeDir(PathBuf);

impl FakeDir {
    pub(crate) fn new(name: &str, files: &[(&str, &str)]) -> FakeDir {
        // Tests run side by side, some with the same name.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rrt-cgroups-{name}-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        FakeDir(path)
    }

    pub(crate) fn open(&self) -> Dir {
        Dir::open(&self.0).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What was written last. An ordinary file keeps the tail of a longer text before it, so tests write shorter over
    /// longer only where they look at the beginning.
    pub(crate) fn content(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for FakeDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
