//! What the tests and the fuzz target check programs with. Nothing here uses the crate's own code: the interpreter is written from
//! seccomp(2) and the kernel's checker, `plain` from the rules of the profile.

pub mod interpreter;
pub mod plain;
