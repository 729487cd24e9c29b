//! How good an entry still is. Pure.

use std::time::Duration;

use super::Config;

/// What may be done with an entry of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and ask again in the background.
    Stale,
    /// Ask again first; serve it if that fails.
    Expired,
    /// It is as if it were not there.
    Gone,
}

/// Judges an entry by its age.
pub(super) fn freshness(age: Duration, limits: &Config) -> Freshness {
    if age < limits.fresh {
        Freshness::Fresh
    } else if age < limits.fresh + limits.stale {
        Freshness::Stale
    } else if age < limits.error {
        Freshness::Expired
    } else {
        Freshness::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ages_from_fresh_over_stale_and_expired_to_gone() {
        let limits = Config {
            fresh: Duration::from_secs(10),
            stale: Duration::from_secs(20),
            error: Duration::from_secs(100),
            ..Config::default()
        };
        let check = |seconds, expected| {
            assert_eq!(
                freshness(Duration::from_secs(seconds), &limits),
                expected,
                "{seconds}"
            );
        };
        check(0, Freshness::Fresh);
        check(9, Freshness::Fresh);
        check(10, Freshness::Stale);
        check(29, Freshness::Stale);
        check(30, Freshness::Expired);
        check(99, Freshness::Expired);
        check(100, Freshness::Gone);
    }
}
