//! The option `loop`: a file as a block device, which goes by itself with the last that uses it. loop(4), Linux 5.8

use crate::error::Error;
use nix::libc;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `LOOP_CTL_GET_FREE`, `LOOP_CONFIGURE`
const GET_FREE: libc::Ioctl = 0x4C82;
const CONFIGURE: libc::Ioctl = 0x4C0A;
/// `LO_FLAGS_READ_ONLY`, `LO_FLAGS_AUTOCLEAR`, `LO_FLAGS_DIRECT_IO`
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT: u32 = 16;
/// A free device may be taken by another before us.
const TRIES: u32 = 100;
/// `LO_NAME_SIZE`, with the NUL at its end.
const NAME: usize = 64;

/// `struct loop_config`: its descriptor, its block size (0: the kernel's choice), `struct loop_info64`, and room for later.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    numbers: [u64; 5],
    device_number: u32,
    encryption: [u32; 2],
    flags: u32,
    name: [u8; NAME],
    secrets: [u8; NAME + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A device with a file in it, and our descriptor, which keeps it until it is mounted.
pub struct Loop {
    /// `/dev/loopN`
    pub path: PathBuf,
    _device: OwnedFd,
}

impl Loop {
    /// Puts `file` into a free device.
    ///
    /// # Errors
    /// There is no device, or `file` cannot be opened. The text names the call.
    pub fn set_up(file: &Path, read_only: bool, direct: bool) -> Result<Loop, Error> {
        let failed = |what: &dyn std::fmt::Display, e: Errno| {
            Error::system(format_args!("loop device for {} (option \"loop\"): {what}", file.display()), e)
        };
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR } | OFlags::CLOEXEC;
        let backing = open(file, access, Mode::empty()).map_err(|e| failed(&"open", e))?;
        let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(&"open /dev/loop-control", e))?;
        let flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 } | if direct { DIRECT } else { 0 };
        let mut config = Config::new(&backing, file, flags);
        let mut tries = 0;
        loop {
            let number = control_call(&control, GET_FREE, None).map_err(|e| failed(&"LOOP_CTL_GET_FREE", e))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device =
                open(&path, access, Mode::empty()).map_err(|e| failed(&format_args!("open {}", path.display()), e))?;
            match control_call(&device, CONFIGURE, Some(&mut config)) {
                Ok(_) => return Ok(Loop { path, _device: device }),
                Err(Errno::BUSY) if tries < TRIES => tries += 1,
                Err(e) => return Err(failed(&format_args!("LOOP_CONFIGURE of {}", path.display()), e)),
            }
        }
    }
}

impl Config {
    fn new(backing: &OwnedFd, path: &Path, flags: u32) -> Config {
        let mut name = [0; NAME];
        // For people, in losetup(8); what is too long is cut.
        name.iter_mut().take(NAME - 1).zip(path.as_os_str().as_encoded_bytes()).for_each(|(to, from)| *to = *from);
        Config {
            file: backing.as_raw_fd().unsigned_abs(),
            block_size: 0,
            numbers: [0; 5],
            device_number: 0,
            encryption: [0; 2],
            flags,
            name,
            secrets: [0; NAME + 32],
            init: [0; 2],
            reserved: [0; 8],
        }
    }
}

#[expect(unsafe_code, reason = "no library has these ioctls")]
fn control_call(fd: &OwnedFd, request: libc::Ioctl, config: Option<&mut Config>) -> Result<i32, Errno> {
    let config = config.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: LOOP_CTL_GET_FREE looks at no argument, LOOP_CONFIGURE at a struct loop_config, which lives longer than the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, config) };
    if result < 0 { Err(Errno::from_raw_os_error(nix::Error::last_raw())) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_struct_is_the_kernels() {
        // linux/loop.h: 8 bytes, loop_info64 of 232, 8 numbers.
        assert_eq!(size_of::<Config>(), 8 + 232 + 64);
        let file = open("/dev/null", OFlags::RDONLY, Mode::empty()).expect("a file");
        let config = Config::new(&file, Path::new(&"x".repeat(100)), 5);
        assert_eq!((config.name[62], config.name[63]), (b'x', 0));
    }

    #[test]
    fn errors_name_the_file() {
        let error = Loop::set_up(Path::new("/no/such/image"), true, false).err().expect("no such file");
        assert!(error.message.contains("/no/such/image") && error.message.contains("loop"), "{error}");
    }
}
