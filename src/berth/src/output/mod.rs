//! How things are printed.

pub mod format;
pub mod table;
pub mod terminal;
pub mod time;
pub mod units;
