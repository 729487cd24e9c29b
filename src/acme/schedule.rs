//! When a certificate is ordered again. Pure: the time and the dice are given.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// A number from 0 to 1 that nobody can foresee.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Dice(f64);

impl Dice {
    /// Throws them.
    pub(super) fn throw() -> Self {
        let mut bytes = [0; 4];
        // Without randomness there is no TLS either; a fixed pause is still a pause.
        let _filled = aws_lc_rs::rand::fill(&mut bytes);
        Self(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
    }

    #[cfg(test)]
    fn of(number: f64) -> Self {
        Self(number)
    }
}

impl Validity {
    /// When it is renewed where the authority says nothing: two thirds through.
    pub(super) fn two_thirds(self) -> Timestamp {
        let lifetime = self.not_after.duration_since(self.not_before);
        later(
            self.not_before,
            lifetime.checked_mul(2).unwrap_or(lifetime) / 3,
        )
    }

    /// Whatever an authority says, it is renewed then: nine tenths through.
    pub(super) fn last_chance(self) -> Timestamp {
        let lifetime = self.not_after.duration_since(self.not_before);
        later(self.not_before, lifetime - lifetime / 10)
    }

    /// The least time between two renewals that an authority asks for: it may be wrong for ever.
    pub(super) fn least_age(self) -> SignedDuration {
        let lifetime = self.not_after.duration_since(self.not_before);
        (lifetime / 3).min(SignedDuration::from_hours(1))
    }
}

/// A moment of the window that an authority suggests (RFC 9773, 4.2).
pub(super) fn in_window(start: Timestamp, end: Timestamp, dice: Dice) -> Timestamp {
    let length = end.duration_since(start).max(SignedDuration::ZERO);
    later(start, scaled(length, dice.0))
}

/// The pause after so many failures: `first`, doubled each time, at most `most`, and a quarter more or
/// less, so that what failed together is not tried together.
pub(super) fn pause(first: Duration, most: Duration, failures: u32, dice: Dice) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let pause = first.saturating_mul(doubled).min(most.max(first));
    pause.mul_f64(0.75 + dice.0 / 2.0)
}

/// How long until `due`, from `now`.
pub(super) fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}

/// `by` after `time`, or the end of time.
pub(super) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn scaled(length: SignedDuration, part: f64) -> SignedDuration {
    let length = Duration::try_from(length).unwrap_or_default();
    SignedDuration::try_from(length.mul_f64(part)).unwrap_or(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let validity = Validity {
            not_before: at(1000),
            not_after: at(1000 + 90),
        };
        assert_eq!(validity.two_thirds(), at(1060));
        assert_eq!(validity.least_age(), SignedDuration::from_secs(30));
        let backwards = Validity {
            not_before: at(1000),
            not_after: at(10),
        };
        assert!(backwards.two_thirds() < at(1000));
        let endless = Validity {
            not_before: at(0),
            not_after: Timestamp::MAX,
        };
        assert!(endless.two_thirds() < Timestamp::MAX);
        assert_eq!(endless.least_age(), SignedDuration::from_hours(1));
    }

    #[test]
    fn a_moment_of_the_window_is_in_it() {
        assert_eq!(in_window(at(10), at(20), Dice::of(0.0)), at(10));
        assert_eq!(in_window(at(10), at(20), Dice::of(0.5)), at(15));
        assert_eq!(in_window(at(10), at(20), Dice::of(1.0)), at(20));
        assert_eq!(in_window(at(20), at(10), Dice::of(1.0)), at(20));
    }

    #[test]
    fn the_pause_doubles_up_to_the_most_and_is_never_none() {
        let (first, most) = (Duration::from_secs(60), Duration::from_secs(1000));
        let plain = |failures| pause(first, most, failures, Dice::of(0.5)).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(plain),
            [60, 120, 240, 480, 960, 1000]
        );
        assert_eq!(plain(u32::MAX), 1000);
        assert_eq!(pause(first, most, 1, Dice::of(0.0)).as_secs(), 45);
        assert_eq!(pause(first, most, 1, Dice::of(1.0)).as_secs(), 75);
        let dice = Dice::throw();
        assert!(Dice::of(0.0) <= dice && dice <= Dice::of(1.0));
    }

    #[test]
    fn what_is_past_is_due_now() {
        assert_eq!(until(at(5), at(10)), Duration::ZERO);
        assert_eq!(until(at(15), at(10)), Duration::from_secs(5));
    }
}
