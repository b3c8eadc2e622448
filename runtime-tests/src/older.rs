//! An older kernel than there is: system calls that it does not have.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Has every system call with a number from `first` to `last` fail with ENOSYS in `command`, and in all that it starts. Needs
/// CAP_SYS_ADMIN. x86-64 and other architectures with one table of numbers.
pub fn without_calls(command: &mut Command, first: u32, last: u32) {
    use nix::libc;
    let filter = move || {
        let code = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            // The number is the first word of `struct seccomp_data`.
            code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 2, first),
            code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, last),
            code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the program lives until the call has copied it. prctl(2), PR_SET_SECCOMP
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and execve it allocates nothing and makes one system call.
    unsafe { command.pre_exec(filter) };
}
