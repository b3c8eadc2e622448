//! Signals by number.

use rustix::process::Signal;

/// The highest there is. signal(7)
const LAST: u32 = 64;

/// The signal of a number, real-time ones among them.
#[expect(unsafe_code, reason = "there is no safe constructor that takes real-time signals")]
pub fn of(number: u32) -> Option<Signal> {
    if !(1..=LAST).contains(&number) {
        return None;
    }
    // SAFETY: a number of a signal; it is only sent, and what a C library keeps for itself must not be handled, which we do not.
    Some(unsafe { Signal::from_raw_unchecked(number.cast_signed()) })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn numbers() {
        assert_eq!(of(9).map(|s| s.as_raw()), Some(9));
        assert_eq!(of(37).map(|s| s.as_raw()), Some(37));
        assert!(of(0).is_none() && of(65).is_none());
    }
}
