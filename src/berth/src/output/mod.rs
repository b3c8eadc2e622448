//! How things are printed.

pub mod file;
pub mod format;
pub mod progress;
pub mod table;
pub mod terminal;
pub mod time;
pub mod units;
