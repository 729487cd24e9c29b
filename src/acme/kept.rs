//! One certificate that is to be there, and when something is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::folder::Shelf;
use super::leaf::Leaf;
use super::names::NameSet;
use super::schedule::{Dice, Validity, in_window, later, until};
use crate::tls::certificate::Certificate;

/// A certificate to be kept, with or without one that is there. Not to be printed: it may hold a key.
pub(super) struct Kept {
    pub(super) shelf: Shelf,
    pub(super) names: NameSet,
    pub(super) certificate: Option<Arc<Certificate>>,
    leaf: Option<Leaf>,
    /// When the certificate came.
    since: Timestamp,
    renew_at: Timestamp,
    /// When the authority is asked when to renew; never, where it does not say.
    advice_at: Option<Timestamp>,
    window: Option<(Timestamp, Timestamp)>,
    /// Nothing is ordered before.
    rests_until: Option<Instant>,
    pub(super) failures: u32,
    /// Whether a task works on it.
    pub(super) busy: bool,
    /// What is not in its file yet, and when that is tried.
    pub(super) unsaved: Option<(Instant, Vec<u8>)>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Order,
    AskWhen,
    /// Nothing for so long.
    Wait(Duration),
}

/// How soon an authority is asked again when to renew (RFC 9773, 4.3.3 leaves that to us).
const SOONEST_ADVICE: SignedDuration = SignedDuration::from_mins(1);
const LATEST_ADVICE: SignedDuration = SignedDuration::from_hours(24);

/// The same where it gave no answer.
const NO_ADVICE: SignedDuration = SignedDuration::from_hours(6);

/// Nobody sleeps longer: a clock that is set is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Kept {
    /// One that is to be ordered.
    pub(super) fn missing(shelf: Shelf, names: NameSet) -> Self {
        Self {
            shelf,
            names,
            certificate: None,
            leaf: None,
            since: Timestamp::MIN,
            renew_at: Timestamp::MIN,
            advice_at: None,
            window: None,
            rests_until: None,
            failures: 0,
            busy: false,
            unsaved: None,
        }
    }

    /// Takes a certificate in, with what its file says, that came at `since`.
    pub(super) fn take(&mut self, certificate: Certificate, pem: &[u8], since: Timestamp) {
        self.leaf = Leaf::read(pem);
        self.since = since;
        self.window = None;
        self.failures = 0;
        self.rests_until = None;
        let validity = self.leaf.as_ref().map(|leaf| leaf.validity);
        self.renew_at = validity.map_or_else(|| certificate.not_after(), Validity::two_thirds);
        let identifier = self.identifier();
        self.advice_at = identifier.map(|_| Timestamp::MIN);
        self.certificate = Some(Arc::new(certificate));
    }

    /// The certificate turns out to be none.
    pub(super) fn lose(&mut self) {
        self.certificate = None;
        self.leaf = None;
        self.window = None;
        self.advice_at = None;
        self.renew_now();
    }

    /// The certificate is there, but another one is wanted.
    pub(super) fn renew_now(&mut self) {
        self.renew_at = Timestamp::MIN;
    }

    /// What the authority calls the certificate that is there.
    pub(super) fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        self.leaf.as_ref()?.identifier.clone()
    }

    /// The certificate whose place a new one takes: told to those authorities alone that say when to
    /// renew.
    pub(super) fn replaced(&self) -> Option<CertificateIdentifier<'static>> {
        self.window.and_then(|_| self.identifier())
    }

    /// What is to be done.
    pub(super) fn next(&self, now: Timestamp, moment: Instant) -> Next {
        let renewal = until(self.renew_at, now);
        let rest = self
            .rests_until
            .map_or(Duration::ZERO, |until| until - moment);
        let order = renewal.max(rest);
        if order.is_zero() {
            return Next::Order;
        }
        let advice = self.advice_at.map(|at| until(at, now));
        match advice {
            Some(advice) if advice.is_zero() => Next::AskWhen,
            Some(advice) => Next::Wait(order.min(advice).min(LONGEST_WAIT)),
            None => Next::Wait(order.min(LONGEST_WAIT)),
        }
    }

    /// Nothing is ordered for so long.
    pub(super) fn rest(&mut self, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(Instant::now() + pause);
    }

    /// The authority suggests a time to renew, and when to ask again (RFC 9773, 4.2).
    pub(super) fn advised(
        &mut self,
        window: (Timestamp, Timestamp),
        again: Duration,
        now: Timestamp,
        dice: Dice,
    ) {
        let again = SignedDuration::try_from(again).unwrap_or(LATEST_ADVICE);
        self.advice_at = Some(later(now, again.clamp(SOONEST_ADVICE, LATEST_ADVICE)));
        let Some(validity) = self.leaf.as_ref().map(|leaf| leaf.validity) else {
            return;
        };
        // The same window leaves the moment alone that was chosen in it.
        if self.window.replace(window) != Some(window) {
            // An authority that suggests the past again and again is not followed in a circle.
            let soonest = later(self.since, validity.least_age());
            let chosen = in_window(window.0, window.1, dice);
            self.renew_at = chosen.max(soonest).min(validity.last_chance());
        }
    }

    /// The authority did not say when: our own rule stands.
    pub(super) fn unadvised(&mut self, now: Timestamp) {
        self.advice_at = Some(later(now, NO_ADVICE));
    }

    /// The authority never says when.
    pub(super) fn never_advised(&mut self) {
        self.advice_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Name;
    use super::*;

    /// A certificate of 90 days from the first of 2026.
    fn kept() -> Kept {
        let authority = rcgen::CertificateParams::default();
        let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 4, 1);
        parameters.use_authority_key_identifier_extension = true;
        let chain = parameters.signed_by(&key, &issuer).unwrap().pem();
        let key = key.serialize_pem();
        let certificate = Certificate::from_pem("a", chain.as_bytes(), key.as_bytes()).unwrap();
        let mut kept = Kept::missing(Shelf::Always, NameSet::one(Name::parse("a.test").unwrap()));
        kept.take(certificate, chain.as_bytes(), day(1));
        kept
    }

    /// A day of 2026.
    fn day(day: i64) -> Timestamp {
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        later(first, SignedDuration::from_hours(24 * (day - 1)))
    }

    fn next(kept: &Kept, now: Timestamp) -> Next {
        kept.next(now, Instant::now())
    }

    const WAIT: Next = Next::Wait(LONGEST_WAIT);

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_ordered_and_rests_after_a_failure() {
        let names = NameSet::one(Name::parse("a.test").unwrap());
        let mut kept = Kept::missing(Shelf::Always, names);
        assert_eq!(next(&kept, day(1)), Next::Order);
        kept.rest(Duration::from_secs(30));
        assert_eq!(next(&kept, day(1)), Next::Wait(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(next(&kept, day(1)), Next::Order);
        // A clock that was wrong does not shorten the rest.
        kept.rest(Duration::from_secs(30));
        assert_eq!(next(&kept, day(9999)), Next::Wait(Duration::from_secs(30)));
    }

    #[tokio::test]
    async fn without_advice_it_is_renewed_after_two_thirds() {
        let mut kept = kept();
        assert_eq!(next(&kept, day(2)), Next::AskWhen);
        kept.unadvised(day(2));
        assert_eq!(next(&kept, day(2)), WAIT);
        assert_eq!(next(&kept, day(3)), Next::AskWhen);
        kept.never_advised();
        assert_eq!(next(&kept, day(60)), WAIT);
        assert_eq!(next(&kept, day(61)), Next::Order);
    }

    #[tokio::test]
    async fn advice_is_followed_but_not_in_a_circle_and_not_to_the_end() {
        let again = Duration::from_secs(6 * 3600);
        let advise = |from, to, now| {
            let mut kept = kept();
            kept.advised((day(from), day(to)), again, day(now), Dice::throw());
            kept
        };
        let later_on = advise(30, 31, 2);
        assert_eq!(next(&later_on, day(2)), WAIT);
        assert_eq!(next(&later_on, day(3)), Next::AskWhen);
        assert_eq!(next(&later_on, day(31)), Next::Order);
        let past = advise(-9, -8, 1);
        assert_eq!(next(&past, day(1)), WAIT, "it came just now");
        assert_eq!(
            next(&past, later(day(1), SignedDuration::from_hours(1))),
            Next::Order
        );
        let too_late = advise(200, 201, 2);
        assert_eq!(next(&too_late, day(90)), Next::Order);
    }

    #[tokio::test]
    async fn the_same_window_keeps_its_moment_and_is_asked_for_as_often_as_is_said() {
        let mut kept = kept();
        let window = (day(30), day(40));
        kept.advised(window, Duration::ZERO, day(2), Dice::throw());
        let chosen = kept.renew_at;
        assert_eq!(kept.advice_at, Some(later(day(2), SOONEST_ADVICE)));
        kept.advised(window, Duration::MAX, day(2), Dice::throw());
        assert_eq!((kept.renew_at, kept.advice_at), (chosen, Some(day(3))));
    }
}
