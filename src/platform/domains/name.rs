//! The name of a custom domain, as an app may claim it. Knows nobody who does.

use serde::{Deserialize, Serialize};

use crate::host::{Host, Under};
use crate::hosts::{HostName, Hosts};

/// A domain name in canonical form: lower case, A-labels (RFC 5890), no dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DomainName(String);

/// Why a name cannot be a custom domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDomain {
    /// With a scheme, a port, a path, or a character that is in no name.
    #[error("is no domain name: write `shop.example`, without scheme, port and path")]
    Name,
    /// Stands for many names.
    #[error("is a wildcard: give each name by itself")]
    Wildcard,
    /// No name at all.
    #[error("is an IP address: a custom domain is a name")]
    Address,
    /// `localhost`, or a top-level domain.
    #[error("has one label: a custom domain has at least two")]
    OneLabel,
    /// There is no room for what proves it (RFC 1035, 2.3.4).
    #[error("is longer than 238 characters")]
    TooLong,
    /// One of `[hosts]`, or below one.
    #[error("is one of this platform's own names, or below one")]
    Own,
}

impl DomainName {
    /// With `_m3o-challenge.` before it, it is a name still.
    const MAX: usize = 238;

    /// Takes a name as people write it, U-labels too; none of `own`, nor below them.
    ///
    /// # Errors
    /// When it could not be proven, or is not to be had.
    pub(crate) fn parse(text: &str, own: &Hosts) -> Result<Self, BadDomain> {
        if text.contains('*') {
            return Err(BadDomain::Wildcard);
        }
        // Longer than any form of a name that is short enough, so that nothing long is looked at.
        if text.len() > 4 * Self::MAX {
            return Err(BadDomain::TooLong);
        }
        // The parser would decode it.
        if text.contains('%') {
            return Err(BadDomain::Name);
        }
        let name = match url::Host::parse(text) {
            Ok(url::Host::Domain(name)) => name,
            Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => return Err(BadDomain::Address),
            Err(_) => return Err(BadDomain::Name),
        };
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name.is_empty() || !name.split('.').all(is_label) {
            return Err(BadDomain::Name);
        }
        if !name.contains('.') {
            return Err(BadDomain::OneLabel);
        }
        if name.len() > Self::MAX {
            return Err(BadDomain::TooLong);
        }
        let host = Host::parse(name).map_err(|_| BadDomain::Name)?;
        let kinds = [&own.app, &own.function, &own.url, &own.user];
        let is_ours = |own: &HostName| host.under(own.as_str()) != Under::Elsewhere;
        if kinds.into_iter().flatten().any(is_ours) {
            return Err(BadDomain::Own);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 1123, 2.1: letters, digits and hyphens, none of these at either end.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(is_plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, BadDomain> {
        let parsed = DomainName::parse(text, &Hosts::default());
        parsed.map(|name| name.as_str().to_owned())
    }

    #[test]
    fn a_name_is_taken_in_its_canonical_form() {
        for (text, expected) in [
            ("shop.example", "shop.example"),
            ("Shop.EXAMPLE.", "shop.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("a.b.c.d.example", "a.b.c.d.example"),
            ("evilm3o.app", "evilm3o.app"),
            ("m3o.com", "m3o.com"),
            ("1.example", "1.example"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_nobody_could_prove_is_refused_with_the_reason() {
        use BadDomain::{Address, Name, OneLabel, Own, TooLong, Wildcard};
        for (text, expected) in [
            ("", Name),
            (".", Name),
            ("shop..example", Name),
            (".shop.example", Name),
            ("shop.example..", Name),
            ("-shop.example", Name),
            ("shop-.example", Name),
            ("_shop.example", Name),
            ("shop example", Name),
            (" shop.example", Name),
            ("shop.example:80", Name),
            ("shop.example/", Name),
            ("http://shop.example", Name),
            ("user@shop.example", Name),
            ("shop%2eexample", Name),
            ("shop\0.example", Name),
            ("xn--a.example", Name),
            ("*.shop.example", Wildcard),
            ("192.0.2.1", Address),
            ("0x7f.1", Address),
            ("[2001:db8::1]", Address),
            ("localhost", OneLabel),
            ("example.", OneLabel),
            ("m3o.app", Own),
            ("blog.M3O.app", Own),
            ("a.b.m3o.sh", Own),
            ("m3o.one", Own),
            ("user.m3o.com", Own),
            ("a.user.m3o.com", Own),
        ] {
            assert_eq!(parse(text), Err(expected), "{text:?}");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert_eq!(parse(&long), Err(Name));
        let name_of = |length: usize| format!("{}aaaa.example", "a.".repeat((length - 12) / 2));
        assert_eq!(parse(&name_of(238)).unwrap().len(), 238);
        assert_eq!(parse(&name_of(240)), Err(TooLong));
        assert_eq!(parse(&"a.".repeat(1000)), Err(TooLong));
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_is_a_host_as_requests_name_it(text in "[ -~éß。．\t]{0,40}|[a-z0-9.-]{1,20}") {
            if let Ok(name) = DomainName::parse(&text, &Hosts::default()) {
                let host = Host::parse(name.as_str()).unwrap();
                proptest::prop_assert_eq!(host.name(), name.as_str());
                proptest::prop_assert!(!name.as_str().contains(['/', '*', ':', '%', '_']));
                let again = DomainName::parse(name.as_str(), &Hosts::default());
                proptest::prop_assert_eq!(again, Ok(name));
            }
        }
    }
}
