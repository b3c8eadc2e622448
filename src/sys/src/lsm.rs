//! Linux security modules by system call (Linux 6.8): which are active, and the attributes of the calling thread.
//!
//! These calls name no file, so nothing that is mounted or linked anywhere can lead them astray (CVE-2019-16884, CVE-2025-52881).

use crate::error::{Result, SysError, check};

/// A module that gives processes labels, with its number of `linux/lsm.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// `LSM_ID_SELINUX`
    Selinux = 101,
    /// `LSM_ID_APPARMOR`
    Apparmor = 104,
}

/// An attribute of a thread, with its number of `linux/lsm.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `LSM_ATTR_CURRENT`: what confines it now.
    Current = 100,
    /// `LSM_ATTR_EXEC`: what will confine it after its next execve.
    Exec = 101,
    /// `LSM_ATTR_KEYCREATE`: the label of keys that it makes.
    KeyCreate = 103,
}

/// The numbers are the same on every architecture that the runtime is built for.
const SYS_LSM_GET_SELF_ATTR: libc::c_long = 459;
const SYS_LSM_SET_SELF_ATTR: libc::c_long = 460;
const SYS_LSM_LIST_MODULES: libc::c_long = 461;

/// The bytes of `struct lsm_ctx` before its value: id, flags, len and ctx_len, 64 bits each.
const HEADER: usize = 32;
/// The longest answer there is room for, in bytes. A label is a page at most.
const ROOM: usize = 4096 + HEADER;

/// The numbers of the active modules (`LSM_ID_*`). lsm_list_modules(2)
///
/// # Errors
/// ENOSYS before Linux 6.8, and where a sandbox hides the call.
pub fn modules() -> Result<Vec<u64>> {
    let mut ids = [0u64; 32];
    let mut size = size_of_val(&ids) as u32;
    // SAFETY: `ids` has room for the `size` bytes that the call is told of. lsm_list_modules(2)
    let ret = unsafe { libc::syscall(SYS_LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut size, 0u32) };
    let count = check(ret, || "lsm_list_modules()".into())?;
    Ok(ids[..count as usize].to_vec())
}

/// Whether a module is among those of [`modules`].
pub fn is_active(modules: &[u64], module: Module) -> bool {
    modules.contains(&(module as u64))
}

/// Sets an attribute of the calling thread; an empty value takes it back. lsm_set_self_attr(2)
///
/// # Errors
/// EINVAL or ENOENT for a value that the module does not know, EACCES or EPERM when its policy forbids the change.
pub fn set_self(attribute: Attribute, module: Module, value: &[u8]) -> Result<()> {
    let mut context = vec![0u8; HEADER + value.len()];
    let size = context.len();
    for (field, number) in [(0, module as usize), (16, size), (24, value.len())] {
        context[field..field + 8].copy_from_slice(&(number as u64).to_ne_bytes());
    }
    context[HEADER..].copy_from_slice(value);
    // SAFETY: the call copies `size` bytes from `context`, which it does not change. lsm_set_self_attr(2)
    let ret = unsafe { libc::syscall(SYS_LSM_SET_SELF_ATTR, attribute as u32, context.as_ptr(), size as u32, 0u32) };
    let text = String::from_utf8_lossy(value);
    check(ret, || format!("lsm_set_self_attr({attribute:?}, {module:?}, {text:?})")).map(drop)
}

/// An attribute of the calling thread, without the NUL that may end it. lsm_get_self_attr(2)
pub fn get_self(attribute: Attribute, module: Module) -> Result<Vec<u8>> {
    /// The answer of the module named in the context only.
    const LSM_FLAG_SINGLE: u32 = 1;
    let mut context = vec![0u64; ROOM / 8];
    context[0] = module as u64;
    let mut size = ROOM as u32;
    let call = || format!("lsm_get_self_attr({attribute:?}, {module:?})");
    // SAFETY: `context` has room for the `size` bytes that the call is told of. lsm_get_self_attr(2)
    let ret = unsafe {
        libc::syscall(SYS_LSM_GET_SELF_ATTR, attribute as u32, context.as_mut_ptr(), &raw mut size, LSM_FLAG_SINGLE)
    };
    check(ret, call)?;
    let bytes: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).skip(HEADER).collect();
    match bytes.get(..context[3] as usize) {
        Some(value) => Ok(value.split(|b| *b == 0).next().unwrap_or_default().to_vec()),
        None => Err(SysError::new(call(), libc::E2BIG)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_a_module_that_is_always_there() {
        match modules() {
            Ok(ids) => assert!(ids.contains(&100), "{ids:?}"),
            Err(e) => assert!(e.is(libc::ENOSYS), "{e}"),
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_an_error() {
        let Ok(ids) = modules() else { return };
        for module in [Module::Selinux, Module::Apparmor] {
            if !is_active(&ids, module) {
                assert!(set_self(Attribute::Exec, module, b"x").unwrap_err().is(libc::EOPNOTSUPP));
                assert!(get_self(Attribute::Current, module).unwrap_err().is(libc::EOPNOTSUPP));
            }
        }
    }
}
