//! Numbers of the OCI specification, which speaks cgroup v1, as cgroup v2 wants them (contract: runc, crun and youki
//! use the same formulas).

use crate::Error;

/// CPU shares (2 to 262144, usual 1024) as a weight (1 to 10000, usual 100); 0 means "not set" and stays 0.
///
/// The curve is the one all runtimes have used since 2025: it keeps both ends and maps the usual value to the usual one,
/// which the straight line before it did not (1024 became 39, so containers lost against host services).
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1 | 2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// A block I/O weight (10 to 1000) as the weight of `io.weight` (1 to 10000).
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

/// `memory.swap` (memory and swap together, in bytes) as the swap alone; `None` when it is not set, -1 for no limit.
pub(crate) fn swap_only(swap: i64, limit: i64) -> Result<Option<i64>, Error> {
    const PROPERTY: &str = "linux.resources.memory.swap";
    match (limit, swap) {
        // v1 lifts both limits when the memory limit is lifted and nothing is said about swap.
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (-1, swap) => Ok(Some(swap)),
        (0, _) => Err(Error::invalid(
            PROPERTY,
            "unable to set swap limit without memory limit; set linux.resources.memory.limit too",
        )),
        (limit, swap) if swap < limit => Err(Error::invalid(
            PROPERTY,
            format!("memory+swap limit should be >= memory limit ({swap} is less than {limit})"),
        )),
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 2),
            (100, 17),
            (512, 59),
            (1024, 100),
            (1025, 101),
            (2048, 174),
            (100_000, 4340),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        let weights: Vec<u64> = (2..=262_144).step_by(37).map(cpu_weight).collect();
        assert!(weights.is_sorted() && weights.iter().all(|w| (1..=10_000).contains(w)));
    }

    #[test]
    fn block_io_weights_keep_their_ends() {
        assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
    }

    #[test]
    fn swap_is_what_is_above_the_memory_limit() {
        let swap = |swap, limit| swap_only(swap, limit).map_err(|e| e.to_string());
        assert_eq!(swap(0, 0), Ok(None));
        assert_eq!(swap(0, 100), Ok(None));
        assert_eq!(swap(0, -1), Ok(Some(-1)));
        assert_eq!(swap(-1, 100), Ok(Some(-1)));
        assert_eq!(swap(300, -1), Ok(Some(300)));
        assert_eq!(swap(300, 100), Ok(Some(200)));
        assert_eq!(swap(100, 100), Ok(Some(0)));
        assert!(swap(100, 0).unwrap_err().starts_with("linux.resources.memory.swap: unable to set swap"));
        assert!(swap(99, 100).unwrap_err().contains("99 is less than 100"));
    }
}
