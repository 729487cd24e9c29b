//! Which certificates end first. Pure.

use std::sync::Arc;

use jiff::Timestamp;

use super::certificate::Certificate;

/// More than these are not told one by one.
const MOST: usize = 64;

/// A certificate, or several, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What it is called.
    pub label: Box<str>,
    /// When it ends, or the first of them.
    pub not_after: Timestamp,
}

/// The ends of those that end first, and as `other` the first end of the rest.
#[must_use]
pub fn soonest(certificates: &[Arc<Certificate>]) -> Vec<Expiry> {
    let mut ends: Vec<_> = certificates
        .iter()
        .map(|certificate| (certificate.not_after(), certificate.label()))
        .collect();
    ends.sort_unstable();
    let expiry = |(index, (not_after, label)): (usize, (Timestamp, &str))| Expiry {
        label: if index < MOST { label } else { OTHER }.into(),
        not_after,
    };
    ends.into_iter()
        .take(MOST + 1)
        .enumerate()
        .map(expiry)
        .collect()
}

const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate::BadPair;

    #[test]
    fn those_that_end_first_are_told_and_the_rest_is_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = |number: usize| {
            let mut parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
            let year = 2030 + i32::try_from(number).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
            let chain = parameters.self_signed(&key).unwrap().pem();
            let label = format!("pair{number}");
            let never = || Err(BadPair::NoCertificate);
            Arc::new(Certificate::index(&label, chain.as_bytes(), never).unwrap())
        };
        let certificates: Vec<_> = (0..MOST + 2).rev().map(certificate).collect();
        let told = soonest(&certificates);
        assert_eq!(told.len(), MOST + 1);
        assert_eq!(&*told[0].label, "pair0");
        assert_eq!(told[0].not_after.to_string(), "2030-01-01T00:00:00Z");
        assert_eq!(&*told[MOST].label, "other");
        assert!(told[MOST].not_after.to_string().starts_with("2094"));
        assert!(soonest(&[]).is_empty());
    }
}
