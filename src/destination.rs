//! Where a redirect may lead: checked when it is written and again when it is sent.

use http::HeaderValue;

use crate::hosts::HostName;

/// An absolute http(s) URL that is safe to put into `Location` as it stands, to the byte. `Debug` shows
/// its origin alone: links carry tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination(HeaderValue);

/// Why a URL cannot be redirected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDestination {
    /// Not `http://` or `https://`.
    #[error("the URL must start with http:// or https://")]
    Scheme,
    /// No host, or one that no URL parser takes.
    #[error("the URL has no host")]
    Host,
    /// `user@` before the host, which hides where the link leads.
    #[error("the URL must not carry a user name or password")]
    UserInfo,
    /// A backslash, space, tab, control or non-ASCII character: browsers read them differently.
    #[error(
        "the URL has a space, a backslash, a control or a non-ASCII character; percent-encode it"
    )]
    Character,
    /// Longer than a `Location` that every browser takes.
    #[error("the URL is longer than 8192 characters")]
    TooLong,
}

impl Destination {
    const MAX: usize = 8192;

    /// Takes a URL that is already in its final form.
    ///
    /// # Errors
    /// When browsers could disagree about where it leads, or it leads nowhere.
    pub fn parse(url: &str) -> Result<Self, BadDestination> {
        if url.len() > Self::MAX {
            return Err(BadDestination::TooLong);
        }
        if !url
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        {
            return Err(BadDestination::Character);
        }
        let (scheme, rest) = url.split_once("://").ok_or(BadDestination::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(BadDestination::Scheme);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(BadDestination::UserInfo);
        }
        if authority.is_empty() {
            return Err(BadDestination::Host);
        }
        let parsed = url::Url::parse(url).map_err(|_| BadDestination::Host)?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(BadDestination::Host);
        }
        let value = HeaderValue::from_str(url).map_err(|_| BadDestination::Character)?;
        Ok(Self(value))
    }

    /// Takes what a person wrote: non-ASCII characters are percent-encoded first (RFC 3987, 3.1),
    /// a host in another script becomes its ASCII form (RFC 5891).
    ///
    /// # Errors
    /// As [`Destination::parse`].
    pub fn encode(url: &str) -> Result<Self, BadDestination> {
        if url.is_ascii() {
            return Self::parse(url);
        }
        let authority_end = url
            .find("://")
            .map(|start| start + 3)
            .and_then(|start| Some(start + url[start..].find(['/', '?', '#'])?))
            .unwrap_or(url.len());
        let (origin, rest) = url.split_at(authority_end);
        let origin = if origin.is_ascii() {
            origin.to_owned()
        } else {
            // The URL parser would also mend what we refuse, so look before it does.
            if origin.contains(['@', '\\', ' ']) || origin.contains(char::is_control) {
                return Self::parse(origin).and(Err(BadDestination::Character));
            }
            let parsed = url::Url::parse(origin).map_err(|_| BadDestination::Host)?;
            parsed.as_str().trim_end_matches('/').to_owned()
        };
        let rest = percent_encoding::utf8_percent_encode(rest, NON_ASCII_ONLY);
        Self::parse(&format!("{origin}{rest}"))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0
            .to_str()
            .expect("only visible ASCII is taken in `parse`")
    }

    /// As a field value; cloning it copies nothing.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The host it leads to, in lower case.
    #[must_use]
    pub fn host(&self) -> String {
        url::Url::parse(self.as_str())
            .ok()
            .and_then(|url| url.host_str().map(str::to_ascii_lowercase))
            .unwrap_or_default()
    }

    /// Whether it leads to one of `hosts`; where there are none, it may lead anywhere.
    #[must_use]
    pub fn stays_on(&self, hosts: &[HostName]) -> bool {
        hosts.is_empty() || hosts.iter().any(|host| host.as_str() == self.host())
    }
}

/// The empty set: `utf8_percent_encode` then encodes non-ASCII characters and nothing else.
const NON_ASCII_ONLY: &percent_encoding::AsciiSet = &percent_encoding::AsciiSet::EMPTY;

impl std::fmt::Debug for Destination {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let origin = self.as_str().splitn(4, ['/', '?', '#']).take(3);
        let origin: Vec<&str> = origin.collect();
        write!(out, "Destination({}/[hidden])", origin.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_url_is_kept_to_the_byte() {
        for url in [
            "https://example.com",
            "HTTP://Example.com:8080/A/../b?c=%zz&d=[1]#e",
            "http://[::1]:8080/",
            "https://example.com/a@b?c=d@e",
        ] {
            assert_eq!(Destination::parse(url).unwrap().as_str(), url);
        }
    }

    #[test]
    fn a_url_that_browsers_could_read_differently_is_refused() {
        use BadDestination::{Character, Host, Scheme, TooLong, UserInfo};
        let check =
            |url: &str, expected| assert_eq!(Destination::parse(url), Err(expected), "{url:?}");
        check("", Scheme);
        check("//evil.com", Scheme);
        check("/path", Scheme);
        check("javascript:alert(1)", Scheme);
        check("javascript://x/%0aalert(1)", Scheme);
        check("ftp://example.com", Scheme);
        check("https://", Host);
        check("https:///path", Host);
        check("https://?query", Host);
        check("https://exa mple.com", Character);
        check(" https://example.com", Character);
        check("https:\\\\evil.com", Character);
        check("https://good.com\\@evil.com", Character);
        check("https://example.com/\r\nSet-Cookie: a=b", Character);
        check("https://example.com/\t", Character);
        check("https://exämple.com", Character);
        check("https://good.com@evil.com/", UserInfo);
        check("https://user:pw@example.com", UserInfo);
        check("https://a:b:c", Host);
        check(
            &format!("https://example.com/{}", "x".repeat(8200)),
            TooLong,
        );
    }

    #[test]
    fn a_list_of_hosts_allows_those_alone_and_an_empty_one_all() {
        let hosts: [HostName; 2] =
            ["a.example", "xn--bcher-kva.example"].map(|name| name.parse().unwrap());
        let check = |url: &str, expected: bool| {
            let destination = Destination::encode(url).unwrap();
            assert_eq!(destination.stays_on(&hosts), expected, "{url}");
            assert!(destination.stays_on(&[]), "{url}");
        };
        check("https://a.example/x", true);
        check("http://A.Example:8080", true);
        check("https://bücher.example/", true);
        check("https://b.a.example/", false);
        check("https://evila.example/", false);
        check("https://b.example/?a.example", false);
    }

    #[test]
    fn what_a_person_wrote_is_percent_encoded() {
        let check = |url: &str, expected: &str| {
            assert_eq!(Destination::encode(url).unwrap().as_str(), expected);
        };
        check(
            "https://example.com/ä?ö=ü",
            "https://example.com/%C3%A4?%C3%B6=%C3%BC",
        );
        check(
            "https://bücher.example/a",
            "https://xn--bcher-kva.example/a",
        );
        check("https://example.com/%zz", "https://example.com/%zz");
        assert!(Destination::encode("https://good.com@bücher.example/").is_err());
        assert!(Destination::encode("https://example.com/ä b").is_err());
    }
}
