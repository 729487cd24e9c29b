//! Which clients are sent to HTTPS, and which are told to stay there. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::hosts::HostName;
use crate::units;
use crate::wire::peer::ListenerId;
use crate::wire::{Body, Peer, Response, Scheme};

/// `[https]`: what holds everywhere, for the names of a domain, and for what came in by a listener.
///
/// Each key is taken from the closest domain that has it, else from the listener, else from the
/// section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether plain HTTP is answered with where the same is over HTTPS.
    pub redirect: bool,
    /// How long browsers are to come over HTTPS only (RFC 6797, 6.1.1). Left out: a year where
    /// `redirect` is on, else they are told nothing. Zero tells them to forget it.
    #[serde(
        with = "units::maybe_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub hsts: Option<Duration>,
    /// Whether that goes for all names under the one that was asked for, too.
    pub hsts_subdomains: bool,
    /// Whether browsers may have the name on the list that they come with.
    pub hsts_preload: bool,
    /// The public port of HTTPS, which redirects lead to.
    pub port: u16,
    /// For a name and all names under it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<HostName, Rule>,
    /// For what came in by an address of `[listen]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: BTreeMap<SocketAddr, Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redirect: false,
            hsts: None,
            hsts_subdomains: false,
            hsts_preload: false,
            port: Scheme::Https.default_port(),
            domains: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }
}

/// What a domain or a listener has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// As in the section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<bool>,
    /// As in the section.
    #[serde(
        with = "units::maybe_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub hsts: Option<Duration>,
    /// As in the section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts_subdomains: Option<bool>,
    /// As in the section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts_preload: Option<bool>,
}

/// What browsers are told who are told nothing else; and the least that they take into their lists.
pub const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Config {
    /// What holds for `domain`, and for what came in by `listener`.
    fn rule(&self, domain: Option<&HostName>, listener: Option<SocketAddr>) -> Rule {
        self.rules(domain.map_or("", HostName::as_str), listener)
            .fold(Rule::default(), |rule, (_, other)| rule.or(&other))
    }

    /// What is written for `name` and `listener`, and where, the closest first.
    fn rules(
        &self,
        name: &str,
        listener: Option<SocketAddr>,
    ) -> impl Iterator<Item = (Place<'_>, Rule)> {
        let section = Rule {
            redirect: Some(self.redirect),
            hsts: self.hsts,
            hsts_subdomains: Some(self.hsts_subdomains),
            hsts_preload: Some(self.hsts_preload),
        };
        let domains = names_above(name).filter_map(|name| self.domains.get_key_value(name));
        let domains = domains.map(|(name, rule)| (Place::Domain(name), rule.clone()));
        let listener =
            listener.and_then(|at| Some((Place::Listener(at), self.listeners.get(&at)?)));
        domains
            .chain(listener.map(|(at, rule)| (at, rule.clone())))
            .chain([(Place::Section, section)])
    }

    /// The names, or the listeners, whose browsers are told more about lists than those take:
    /// `None` is the section.
    pub fn unlistable(&self) -> impl Iterator<Item = Place<'_>> {
        let listable = |rule: &Rule| {
            let long = rule.max_age().is_some_and(|age| age >= YEAR);
            !rule.hsts_preload.unwrap_or_default() || long && rule.hsts_subdomains == Some(true)
        };
        let section = std::iter::once((Place::Section, self.rule(None, None)));
        let domains = self.domains.keys();
        let domains = domains.map(|name| (Place::Domain(name), self.rule(Some(name), None)));
        let listeners = self.listeners.keys();
        let listeners = listeners.map(|at| (Place::Listener(*at), self.rule(None, Some(*at))));
        section
            .chain(domains)
            .chain(listeners)
            .filter_map(move |(place, rule)| (!listable(&rule)).then_some(place))
    }
}

/// Where a rule is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// `[https]` itself.
    Section,
    /// One of `domains`.
    Domain(&'a HostName),
    /// One of `listeners`.
    Listener(SocketAddr),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Section => out.write_str("https"),
            Self::Domain(name) => write!(out, "https.domains.\"{name}\""),
            Self::Listener(address) => write!(out, "https.listeners.\"{address}\""),
        }
    }
}

impl Rule {
    /// This rule, with what it leaves open from `other`.
    fn or(self, other: &Self) -> Self {
        Self {
            redirect: self.redirect.or(other.redirect),
            hsts: self.hsts.or(other.hsts),
            hsts_subdomains: self.hsts_subdomains.or(other.hsts_subdomains),
            hsts_preload: self.hsts_preload.or(other.hsts_preload),
        }
    }

    /// Whoever has everybody come over HTTPS says so.
    fn max_age(&self) -> Option<Duration> {
        let usual = (self.redirect == Some(true)).then_some(YEAR);
        self.hsts.or(usual)
    }

    fn policy(&self) -> Policy {
        let directive = |on: Option<bool>, text| if on == Some(true) { text } else { "" };
        let promise = self.max_age().map(|age| {
            let text = format!(
                "max-age={}{}{}",
                age.as_secs(),
                directive(self.hsts_subdomains, "; includeSubDomains"),
                directive(self.hsts_preload, "; preload"),
            );
            HeaderValue::try_from(text).expect("it is visible ASCII")
        });
        Policy {
            redirect: self.redirect == Some(true),
            promise,
        }
    }
}

/// `name`, and what is left of it after each dot.
fn names_above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| Some(name.split_once('.')?.1))
}

/// The rules of a configuration, ready for every request.
#[derive(Debug)]
pub struct Https {
    port: u16,
    /// The places of the listeners in the lists of policies.
    ids: Vec<ListenerId>,
    /// For each listener, and last for what came by one that is gone.
    listeners: Vec<Policy>,
    /// The same for what is at a name of this or under it.
    domains: HashMap<String, Vec<Policy>>,
    /// What it was made of, for whoever asks, and what its listeners are called there.
    config: Config,
    addresses: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Policy {
    redirect: bool,
    /// The value of `Strict-Transport-Security`.
    promise: Option<HeaderValue>,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand<'a> {
    /// Nothing but its answer.
    Nothing,
    /// It is to be asked over HTTPS.
    Redirect,
    /// Whatever its answer is, this goes with it.
    Promise(&'a HeaderValue),
}

impl Https {
    /// `None` where nobody is sent to HTTPS or told to stay there. `listeners` come with the addresses
    /// that the configuration names them by.
    pub fn new(
        config: &Config,
        listeners: impl Iterator<Item = (ListenerId, SocketAddr)>,
    ) -> Option<Self> {
        let (ids, listeners): (Vec<ListenerId>, Vec<SocketAddr>) = listeners.unzip();
        let policies = |domain: Option<&HostName>| -> Vec<Policy> {
            let known = listeners.iter().map(|listener| Some(*listener));
            known
                .chain([None])
                .map(|listener| config.rule(domain, listener).policy())
                .collect()
        };
        let domains = config.domains.keys();
        let https = Self {
            port: config.port,
            ids,
            listeners: policies(None),
            domains: domains
                .map(|name| (name.as_str().to_owned(), policies(Some(name))))
                .collect(),
            config: config.clone(),
            addresses: listeners.clone(),
        };
        let all = https
            .listeners
            .iter()
            .chain(https.domains.values().flatten());
        let mut all = all.map(|policy| policy.redirect || policy.promise.is_some());
        all.any(|asks| asks).then_some(https)
    }

    /// What becomes of a request for `host`, whose client came by `listener` and sees `scheme` in its
    /// address bar.
    ///
    /// RFC 6797, 7.2: nothing is promised over plain HTTP.
    pub(super) fn demand(
        &self,
        host: &Host<'_>,
        listener: ListenerId,
        scheme: Scheme,
        path: &str,
    ) -> Demand<'_> {
        match (self.policy(host.name(), listener), scheme) {
            (Some(policy), Scheme::Http) if policy.redirect && !path.starts_with(ACME) => {
                Demand::Redirect
            }
            (Some(policy), Scheme::Https) => policy
                .promise
                .as_ref()
                .map_or(Demand::Nothing, Demand::Promise),
            _ => Demand::Nothing,
        }
    }

    /// Why that is so: the keys that decide it, with their values.
    pub(super) fn reasons(
        &self,
        host: &Host<'_>,
        listener: ListenerId,
        demand: Demand<'_>,
    ) -> Vec<String> {
        let place = self.ids.iter().position(|id| *id == listener);
        let address = place.and_then(|place| self.addresses.get(place).copied());
        let rules: Vec<(Place<'_>, Rule)> = self.config.rules(host.name(), address).collect();
        let told = |key: &str, value: &dyn Fn(&Rule) -> Option<String>| {
            let mut known = rules.iter();
            known.find_map(|(place, rule)| Some(format!("{place}.{key} = {}", value(rule)?)))
        };
        let redirect = told("redirect", &|rule| rule.redirect.map(|on| on.to_string()));
        if !matches!(demand, Demand::Promise(_)) {
            return redirect.into_iter().collect();
        }
        let hsts = told("hsts", &|rule| rule.hsts.map(units::duration::format));
        let on = |on: Option<bool>| on.map(|on| on.to_string());
        let subdomains = told("hsts_subdomains", &|rule| on(rule.hsts_subdomains));
        let preload = told("hsts_preload", &|rule| on(rule.hsts_preload));
        [hsts.or(redirect), subdomains, preload]
            .into_iter()
            .flatten()
            .collect()
    }

    /// What goes with an answer to something that names no host: what the one of the handshake asks for.
    pub(super) fn promise(&self, peer: &Peer) -> Option<&HeaderValue> {
        let secured = peer.secured.as_ref()?;
        let name = secured.sni.as_deref().unwrap_or_default();
        self.policy(name, peer.listener)?.promise.as_ref()
    }

    fn policy(&self, name: &str, listener: ListenerId) -> Option<&Policy> {
        let domain = names_above(name).find_map(|name| self.domains.get(name));
        let policies = domain.unwrap_or(&self.listeners);
        let place = self.ids.iter().position(|id| *id == listener);
        policies.get(place.unwrap_or(self.ids.len()))
    }

    /// The answer to a request that is to come again over HTTPS: its method and its body are to stay
    /// what they are (RFC 9110, 15.4.9).
    pub(super) fn redirect(&self, host: &Host<'_>, uri: &Uri) -> Option<Response> {
        let port = match self.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        // What asks for no path, `*` say, has one there.
        let (slash, target) = match target.as_bytes().first() {
            Some(b'/') => ("", target),
            Some(b'?') => ("/", target),
            _ => ("/", ""),
        };
        let location = format!("https://{}{port}{slash}{target}", host.name());
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        let location = HeaderValue::try_from(location).ok()?;
        response.headers_mut().insert(header::LOCATION, location);
        Some(response)
    }
}

/// RFC 8555, 8.3: an authority asks for these over plain HTTP, before there is a certificate.
const ACME: &str = "/.well-known/acme-challenge/";

#[cfg(test)]
mod tests;
