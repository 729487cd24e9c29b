//! The public names of this ingress: `[hosts]`, and the links that are made from them.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::id::{LinkId, WorkloadId};
use crate::units;

/// `[hosts]`: which names lead to apps, functions, short links and verification.
///
/// The first of each list is the one that links are made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hosts {
    /// `<id>.` before one of these is an app.
    #[serde(with = "units::one_or_many")]
    pub app: Vec<HostName>,
    /// `<id>.` before one of these is a function.
    #[serde(with = "units::one_or_many")]
    pub function: Vec<HostName>,
    /// Hosts of short links: any path but `/` is one.
    #[serde(with = "units::one_or_many")]
    pub url: Vec<HostName>,
    /// Hosts of the links in verification mails.
    #[serde(with = "units::one_or_many")]
    pub user: Vec<HostName>,
}

impl Default for Hosts {
    fn default() -> Self {
        let one = |name: &str| vec![HostName(name.to_owned())];
        Self {
            app: one("m3o.app"),
            function: one("m3o.sh"),
            url: one("m3o.one"),
            user: one("user.m3o.com"),
        }
    }
}

/// A host name in canonical form: lower case, no port, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some((scheme, _)) = name.split_once("://") {
            return Err(format!("`{name}` is no host name: leave `{scheme}://` out"));
        }
        let host =
            Host::parse(name).map_err(|error| format!("`{name}` is no host name: {error}"))?;
        if host.port().is_some() {
            return Err(format!(
                "`{name}` has a port: a host is configured by its name alone"
            ));
        }
        if host.name().starts_with('.') || host.name().contains("..") {
            return Err(format!(
                "`{name}` has an empty label: write `m3o.app`, without a dot in front"
            ));
        }
        Ok(Self(host.name().to_owned()))
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Scheme and port of public links: `https`, or `http:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicScheme {
    /// `https`, not `http`.
    pub secure: bool,
    /// The port, where it is not the scheme's own.
    pub port: Option<u16>,
}

impl Default for PublicScheme {
    fn default() -> Self {
        Self {
            secure: true,
            port: None,
        }
    }
}

impl TryFrom<String> for PublicScheme {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no scheme: write \"https\", \"http\", or with a port \"http:8080\""
            )
        };
        let (scheme, port) = match text.split_once(':') {
            Some((scheme, port)) => (scheme, Some(port.parse::<u16>().map_err(|_| wrong())?)),
            None => (text.as_str(), None),
        };
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let usual = if secure { 443 } else { 80 };
        Ok(Self {
            secure,
            port: port.filter(|port| *port != usual),
        })
    }
}

impl From<PublicScheme> for String {
    fn from(scheme: PublicScheme) -> Self {
        let name = if scheme.secure { "https" } else { "http" };
        scheme
            .port
            .map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
    }
}

/// Makes the public links of apps, functions, short links and verification mails.
#[derive(Debug, Clone)]
pub struct PublicLinks {
    scheme: PublicScheme,
    hosts: Hosts,
}

impl PublicLinks {
    /// Links with the first host of each kind.
    #[must_use]
    pub fn new(scheme: PublicScheme, hosts: Hosts) -> Self {
        Self { scheme, hosts }
    }

    /// `https://<id>.m3o.app`
    #[must_use]
    pub fn app(&self, id: &WorkloadId) -> String {
        self.origin(Some(id), &self.hosts.app)
    }

    /// `https://<id>.m3o.sh`
    #[must_use]
    pub fn function(&self, id: &WorkloadId) -> String {
        self.origin(Some(id), &self.hosts.function)
    }

    /// `https://m3o.one/u/<id>`
    #[must_use]
    pub fn link(&self, id: &LinkId) -> String {
        format!("{}/u/{id}", self.origin(None, &self.hosts.url))
    }

    /// `https://user.m3o.com/?token=…`; `query` is already encoded.
    #[must_use]
    pub fn verification(&self, query: &str) -> String {
        format!("{}/?{query}", self.origin(None, &self.hosts.user))
    }

    /// The id in a short link, in any form that this ingress serves:
    /// `/u/<id>` and `/url/<id>` on any host, `/<id>` on a host of short links.
    #[must_use]
    pub fn link_id(&self, short_url: &str) -> Option<LinkId> {
        let rest = short_url
            .split_once("://")
            .map_or(short_url, |(_, rest)| rest);
        let (authority, path) = rest.split_once('/')?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let id = match path.split_once('/') {
            Some(("u" | "url", id)) => id,
            Some(_) => return None,
            None => {
                let host = Host::parse(authority).ok()?;
                let known = self
                    .hosts
                    .url
                    .iter()
                    .any(|name| name.as_str() == host.name());
                if !known {
                    return None;
                }
                path
            }
        };
        LinkId::parse(id).ok()
    }

    fn origin(&self, id: Option<&WorkloadId>, hosts: &[HostName]) -> String {
        let scheme = if self.scheme.secure { "https" } else { "http" };
        let host = hosts.first().map_or("localhost", HostName::as_str);
        let mut origin = format!("{scheme}://");
        if let Some(id) = id {
            origin.push_str(id.as_str());
            origin.push('.');
        }
        origin.push_str(host);
        if let Some(port) = self.scheme.port {
            origin.push_str(&format!(":{port}"));
        }
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(scheme: &str) -> PublicLinks {
        PublicLinks::new(
            PublicScheme::try_from(scheme.to_owned()).unwrap(),
            Hosts::default(),
        )
    }

    #[test]
    fn links_follow_the_public_scheme_and_the_first_host() {
        let id = WorkloadId::parse("blog").unwrap();
        assert_eq!(links("https").app(&id), "https://blog.m3o.app");
        assert_eq!(links("http:8080").function(&id), "http://blog.m3o.sh:8080");
        assert_eq!(
            links("https:443").link(&LinkId::parse("Ab").unwrap()),
            "https://m3o.one/u/Ab"
        );
        assert_eq!(
            links("https").verification("token=x"),
            "https://user.m3o.com/?token=x"
        );
    }

    #[test]
    fn a_short_link_is_known_in_every_form_that_is_served() {
        let check = |url: &str, expected: Option<&str>| {
            let id = links("https").link_id(url);
            assert_eq!(id.as_ref().map(LinkId::as_str), expected, "{url}");
        };
        check("https://m3o.one/u/Ab-1", Some("Ab-1"));
        check("http://localhost:8080/u/Ab", Some("Ab"));
        check("https://any.example/url/Ab", Some("Ab"));
        check("https://M3O.one:443/Ab?x=y", Some("Ab"));
        check("m3o.one/Ab", Some("Ab"));
        check("https://other.example/Ab", None);
        check("https://m3o.one/", None);
        check("https://m3o.one/x/Ab", None);
        check("https://m3o.one/u/", None);
        check("Ab", None);
    }

    #[test]
    fn a_host_name_is_a_name_alone() {
        assert_eq!("M3O.app.".parse::<HostName>().unwrap().as_str(), "m3o.app");
        for name in ["", ".m3o.app", "a..b", "m3o.app:80", "a b", "u@h"] {
            assert!(name.parse::<HostName>().is_err(), "{name}");
        }
    }
}
