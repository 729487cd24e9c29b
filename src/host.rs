//! The host that a request is for, parsed once at the edge. Knows no configuration.

use std::borrow::Cow;
use std::fmt;

/// The host of a request's authority: lower case, without port and without one trailing dot.
///
/// Borrows from the request where nothing had to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
}

/// Why an authority names no host that we serve (RFC 9112, 3.2: such a request is a 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHost {
    /// Nothing stands before the port.
    #[error("the host is empty")]
    Empty,
    /// User information, a space, a control or another character no host has.
    #[error("the host has a character that no host name has")]
    Character,
    /// What follows the colon is not a port number.
    #[error("the port is not a number from 0 to 65535")]
    Port,
    /// Longer than a DNS name can be (RFC 1035, 2.3.4).
    #[error("the host is longer than 255 octets")]
    TooLong,
}

/// Where a host stands relative to a suffix such as `m3o.app`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under<'a> {
    /// The suffix itself.
    Itself,
    /// One label before it.
    Label(&'a str),
    /// More than one label before it.
    Deeper,
    /// Not under it at all: suffixes match at a dot only.
    Elsewhere,
}

impl<'a> Host<'a> {
    /// Parses the authority of a request target or the value of a `Host` field.
    ///
    /// # Errors
    /// When it is not a host with an optional port: user information is refused too.
    pub fn parse(authority: &'a str) -> Result<Self, BadHost> {
        let (name, port) = split_port(authority)?;
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(BadHost::Empty);
        }
        if name.len() > 255 {
            return Err(BadHost::TooLong);
        }
        let plain = name.bytes().all(is_host_byte);
        if !plain && !is_ip_literal(name) {
            return Err(BadHost::Character);
        }
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Ok(Self { name, port })
    }

    /// The name: lower case, no port, no trailing dot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, where the authority had one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Compares with `suffix` label by label: `evilm3o.app` is not under `m3o.app`.
    #[must_use]
    pub fn under(&self, suffix: &str) -> Under<'_> {
        let Some(rest) = self.name.strip_suffix(suffix) else {
            return Under::Elsewhere;
        };
        if rest.is_empty() {
            return Under::Itself;
        }
        let Some(label) = rest.strip_suffix('.') else {
            return Under::Elsewhere;
        };
        if label.contains('.') {
            return Under::Deeper;
        }
        Under::Label(label)
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

/// Splits `host:port`, leaving the colons of an IPv6 literal alone.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), BadHost> {
    let after_literal = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[after_literal..].find(':') else {
        return Ok((authority, None));
    };
    let (name, port) = authority.split_at(after_literal + colon);
    let port = &port[1..];
    if port.is_empty() {
        // RFC 3986, 3.2.3: an empty port is the scheme's own.
        return Ok((name, None));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadHost::Port);
    }
    port.parse()
        .map(|port| (name, Some(port)))
        .map_err(|_| BadHost::Port)
}

/// Letters, digits, hyphen and dot, and the underscore that some real names carry.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn is_ip_literal(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authority: &str, expected: Result<(&str, Option<u16>), BadHost>) {
        let host = Host::parse(authority);
        let parts = host.as_ref().map(|host| (host.name(), host.port()));
        assert_eq!(parts.map_err(|error| *error), expected, "{authority:?}");
    }

    #[test]
    fn an_authority_becomes_a_lower_case_name_without_port_and_dot() {
        check("m3o.app", Ok(("m3o.app", None)));
        check("M3O.App.:8080", Ok(("m3o.app", Some(8080))));
        check("localhost:", Ok(("localhost", None)));
        check("[::1]:8080", Ok(("[::1]", Some(8080))));
        check("[::1]", Ok(("[::1]", None)));
        check("127.0.0.1:65535", Ok(("127.0.0.1", Some(65535))));
        check("m3o.app..", Ok(("m3o.app.", None)));
    }

    #[test]
    fn what_is_not_a_host_is_refused_with_its_reason() {
        check("", Err(BadHost::Empty));
        check(".", Err(BadHost::Empty));
        check(":8080", Err(BadHost::Empty));
        check("user@m3o.app", Err(BadHost::Character));
        check("user:pass@m3o.app", Err(BadHost::Port));
        check("m3o app", Err(BadHost::Character));
        check("m3o.app,evil.com", Err(BadHost::Character));
        check("m3o%2eapp", Err(BadHost::Character));
        check("m3o.app/", Err(BadHost::Character));
        check("m3ö.app", Err(BadHost::Character));
        check("[::1", Err(BadHost::Port));
        check("[zz]", Err(BadHost::Character));
        check("m3o.app:80a", Err(BadHost::Port));
        check("m3o.app:65536", Err(BadHost::Port));
        check("m3o.app:+80", Err(BadHost::Port));
        check("m3o.app:80:80", Err(BadHost::Port));
        check(&"a".repeat(256), Err(BadHost::TooLong));
    }

    #[test]
    fn a_suffix_matches_at_a_dot_only() {
        let under = |name: &'static str| match Host::parse(name).unwrap().under("m3o.app") {
            Under::Itself => "itself".to_owned(),
            Under::Label(label) => label.to_owned(),
            Under::Deeper => "deeper".to_owned(),
            Under::Elsewhere => "elsewhere".to_owned(),
        };
        assert_eq!(under("m3o.app"), "itself");
        assert_eq!(under("blog.M3O.app"), "blog");
        assert_eq!(under("a.b.m3o.app"), "deeper");
        assert_eq!(under("evilm3o.app"), "elsewhere");
        assert_eq!(under("m3o.app.evil.com"), "elsewhere");
        assert_eq!(under(".m3o.app"), "");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_for_a_host_is_canonical(authority in "[ -~é\t]{0,40}") {
            if let Ok(host) = Host::parse(&authority) {
                let name = host.name();
                proptest::prop_assert!(!name.is_empty());
                proptest::prop_assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
                proptest::prop_assert!(!name.contains(['@', '/', ' ', '%', ',', '\\']));
                let again = Host::parse(name.trim_end_matches('.'));
                proptest::prop_assert!(again.is_ok() || name.ends_with('.'));
            }
        }

        #[test]
        fn a_label_is_found_exactly_before_a_dot_and_the_suffix(label in "[a-z0-9.-]{1,12}") {
            let name = format!("{label}.m3o.app");
            if let Ok(host) = Host::parse(&name) {
                let expected = if label.contains('.') { Under::Deeper } else { Under::Label(&label) };
                proptest::prop_assert_eq!(host.under("m3o.app"), expected);
            }
            let glued = format!("{label}m3o.app");
            if !label.ends_with('.') && let Ok(host) = Host::parse(&glued) {
                proptest::prop_assert_eq!(host.under("m3o.app"), Under::Elsewhere);
            }
        }
    }
}
