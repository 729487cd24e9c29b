//! `[tls.acme]`: which authority is asked for certificates, for what, and how a name is proven.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{Name, NameSet};
use crate::hosts::{HostName, Hosts};
use crate::units;

/// `[tls.acme]`: certificates from an authority that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL of the authority's directory.
    pub directory: DirectoryUrl,
    /// Mail addresses that the authority may write to.
    #[serde(default, with = "units::one_or_many")]
    pub contact: Vec<String>,
    /// Whether the authority's terms of service are agreed to.
    #[serde(default)]
    pub agree: bool,
    /// The kind of key of each certificate.
    #[serde(default)]
    pub key_type: KeyType,
    /// The key identifier of an external account binding (RFC 8555, 7.3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_kid: Option<String>,
    /// The environment variable with the key of that binding, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_key_env: Option<String>,
    /// A PEM file of authorities to trust the directory by, besides the system's; empty: none.
    #[serde(default)]
    pub ca: String,
    /// Where account and certificates are kept; empty: `acme` beside the platform's store.
    #[serde(default)]
    pub folder: PathBuf,
    /// The certificates to have always, each a name or a list; empty: those of `[hosts]`.
    #[serde(default)]
    pub names: Vec<NameSet>,
    /// How a name is proven, the preferred way first.
    #[serde(default = "all_challenges", with = "units::one_or_many")]
    pub challenge: Vec<Challenge>,
    /// How DNS records are made, for DNS-01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// How long one request to the authority may take.
    #[serde(default = "default_timeout", with = "units::duration")]
    pub timeout: Duration,
    /// How long one order may take in all.
    #[serde(default = "default_order_timeout", with = "units::duration")]
    pub order_timeout: Duration,
    /// Orders that are under way at once.
    #[serde(default = "default_orders")]
    pub orders: usize,
    /// The pause after the first failed order for a name; it doubles with each further one.
    #[serde(default = "default_retry", with = "units::duration")]
    pub retry: Duration,
    /// The longest pause.
    #[serde(default = "default_retry_most", with = "units::duration")]
    pub retry_most: Duration,
    /// Whether names that the platform knows get a certificate at their first handshake.
    #[serde(default)]
    pub on_demand: bool,
    /// Such orders that one address may cause in a period.
    #[serde(default = "default_per_peer")]
    pub on_demand_per_peer: u32,
    /// Such orders in a period, whoever causes them.
    #[serde(default = "default_overall")]
    pub on_demand_overall: u32,
    /// That period.
    #[serde(default = "default_period", with = "units::duration")]
    pub on_demand_period: Duration,
    /// Handshakes that wait for a certificate.
    #[serde(default = "default_waiting")]
    pub on_demand_waiting: usize,
    /// Certificates that are kept of those.
    #[serde(default = "default_certificates")]
    pub on_demand_certificates: usize,
}

impl Config {
    /// The certificates to have always: the configured ones, or one for each of `[hosts]`.
    ///
    /// Those have a wildcard for apps and functions where DNS-01 can prove it.
    #[must_use]
    pub fn names_for(&self, hosts: &Hosts) -> Vec<NameSet> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        let parents = hosts.app.iter().chain(&hosts.function);
        let parents = parents.filter_map(|host| {
            let wildcard = Name::parse(&format!("*.{host}")).ok();
            let wildcard = wildcard.filter(|_| self.can_prove_wildcards());
            let names = wildcard.into_iter().chain([name(host)?]);
            NameSet::new(names.collect()).ok()
        });
        let others = hosts.url.iter().chain(&hosts.user);
        let others = others.filter_map(|host| Some(NameSet::one(name(host)?)));
        parents.chain(others).collect()
    }

    /// Whether DNS-01 is configured and allowed.
    #[must_use]
    pub fn can_prove_wildcards(&self) -> bool {
        self.dns.is_some() && self.challenge.contains(&Challenge::Dns01)
    }
}

fn name(host: &HostName) -> Option<Name> {
    Name::parse(host.as_str()).ok()
}

/// The URL of a directory: https, so that nobody in between can lie about it (RFC 8555, 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DirectoryUrl(url::Url);

impl DirectoryUrl {
    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// A file name that tells this directory from others.
    #[must_use]
    pub fn file_name(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port().map(|port| format!("_{port}"));
        let path = self.0.path().trim_end_matches('/');
        let text = format!("{host}{}{path}", port.unwrap_or_default());
        text.chars()
            .map(|letter| match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' => letter,
                _ => '_',
            })
            .collect()
    }
}

impl TryFrom<String> for DirectoryUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let shown = text.rsplit('@').next().unwrap_or_default();
        let wrong = |why: &str| {
            format!(
                "`{shown}` is no directory of an authority: {why}; write it like \"https://acme-v02.api.letsencrypt.org/directory\""
            )
        };
        let url = url::Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(wrong("the scheme is not https"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it has no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it carries a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(wrong("it has a fragment"));
        }
        Ok(Self(url))
    }
}

impl From<DirectoryUrl> for String {
    fn from(directory: DirectoryUrl) -> Self {
        directory.0.into()
    }
}

/// The kind of key that a certificate has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits, for clients of the last century.
    Rsa2048,
}

/// How an authority is shown that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Challenge {
    /// A record in the DNS (RFC 8555, 8.4); the only one for wildcards.
    #[serde(rename = "dns-01")]
    Dns01,
    /// A certificate at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A page at port 80 (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

impl Challenge {
    /// As the configuration and RFC 8555 call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns01 => "dns-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// `[tls.acme.dns]`: one way to make DNS records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Dynamic updates; excludes `hook`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// A program; excludes `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
}

/// `[tls.acme.dns.update]`: dynamic updates (RFC 2136) that are signed (RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The primary name server, over TCP.
    pub server: ServerAddress,
    /// The zone that the records are in; empty: the server is asked.
    #[serde(default)]
    pub zone: String,
    /// The name of the key.
    pub key_name: String,
    /// What signs.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// The environment variable with the key, in base64.
    pub key_env: String,
    /// How long others may remember the records.
    #[serde(default = "default_ttl", with = "units::duration")]
    pub ttl: Duration,
    /// Name servers that must show a record before the authority is told; empty: `server`.
    #[serde(default, with = "units::one_or_many")]
    pub watch: Vec<ServerAddress>,
    /// How long they are waited for; also the longest that one answer may take.
    #[serde(default = "default_wait", with = "units::duration")]
    pub wait: Duration,
}

/// The address of a name server; without a port it is 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerAddress(pub SocketAddr);

impl TryFrom<String> for ServerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let alone = || {
            let address: IpAddr = text.parse().ok()?;
            Some(SocketAddr::new(address, 53))
        };
        text.parse().ok().or_else(alone).map(Self).ok_or_else(|| {
            format!("`{text}` is no address of a name server: write it like \"192.0.2.53:53\"")
        })
    }
}

impl From<ServerAddress> for String {
    fn from(address: ServerAddress) -> Self {
        address.0.to_string()
    }
}

/// What signs an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

/// `[tls.acme.dns.hook]`: a program that makes and removes records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program and what it is always given.
    #[serde(with = "units::one_or_many")]
    pub command: Vec<String>,
    /// How long it may take.
    #[serde(default = "default_wait", with = "units::duration")]
    pub timeout: Duration,
}

fn all_challenges() -> Vec<Challenge> {
    vec![Challenge::Dns01, Challenge::TlsAlpn01, Challenge::Http01]
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_order_timeout() -> Duration {
    Duration::from_mins(10)
}

fn default_orders() -> usize {
    4
}

fn default_retry() -> Duration {
    Duration::from_mins(1)
}

fn default_retry_most() -> Duration {
    Duration::from_hours(12)
}

fn default_per_peer() -> u32 {
    5
}

fn default_overall() -> u32 {
    50
}

fn default_period() -> Duration {
    Duration::from_hours(1)
}

fn default_waiting() -> usize {
    256
}

fn default_certificates() -> usize {
    10_000
}

fn default_ttl() -> Duration {
    Duration::from_secs(60)
}

fn default_wait() -> Duration {
    Duration::from_mins(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        toml::from_str(&format!(
            "directory = 'https://acme.example/directory'\nagree = true\n{more}"
        ))
        .unwrap()
    }

    fn names(config: &Config) -> Vec<String> {
        let sets = config.names_for(&Hosts::default());
        sets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_names_those_of_the_hosts_are_ordered_with_wildcards_where_dns_proves_them() {
        let plain = ["m3o.app", "m3o.sh", "m3o.one", "user.m3o.com"];
        assert_eq!(names(&config("")), plain);
        let hook = "[dns.hook]\ncommand = ['/hook']";
        let wild = [
            "*.m3o.app, m3o.app",
            "*.m3o.sh, m3o.sh",
            "m3o.one",
            "user.m3o.com",
        ];
        assert_eq!(names(&config(hook)), wild);
        let not_allowed = format!("challenge = 'http-01'\n{hook}");
        assert_eq!(names(&config(&not_allowed)), plain);
        assert_eq!(
            names(&config("names = ['a.test', ['b.test', '*.b.test']]")),
            ["a.test", "b.test, *.b.test"]
        );
    }

    #[test]
    fn a_directory_is_https_and_names_its_folder() {
        let url = |text: &str| DirectoryUrl::try_from(text.to_owned());
        for bad in [
            "http://acme.example/",
            "acme.example",
            "https://u:canary@acme.example/",
        ] {
            let error = url(bad).unwrap_err();
            assert!(
                error.contains("write it like") && !error.contains("canary"),
                "{error}"
            );
        }
        let name = url("https://localhost:14000/dir/../a%2fb/")
            .unwrap()
            .file_name();
        assert_eq!(name, "localhost_14000_a_2fb");
    }

    #[test]
    fn a_name_server_without_a_port_is_at_53() {
        let address = |text: &str| ServerAddress::try_from(text.to_owned()).map(String::from);
        assert_eq!(address("192.0.2.1").as_deref(), Ok("192.0.2.1:53"));
        assert_eq!(address("[::1]:5353").as_deref(), Ok("[::1]:5353"));
        assert!(address("ns.example").is_err());
    }
}
