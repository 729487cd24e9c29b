//! Which clients are sent to HTTPS, and which are told to stay there. Pure.

use std::collections::{BTreeMap, HashMap};
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
        let section = Rule {
            redirect: Some(self.redirect),
            hsts: self.hsts,
            hsts_subdomains: Some(self.hsts_subdomains),
            hsts_preload: Some(self.hsts_preload),
        };
        let listener = listener.and_then(|listener| self.listeners.get(&listener));
        names_above(domain.map_or("", HostName::as_str))
            .filter_map(|name| self.domains.get(name))
            .chain(listener)
            .fold(Rule::default(), Rule::or)
            .or(&section)
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
mod tests {
    use super::*;

    const PLAIN: &str = "127.0.0.1:80";
    const OTHER: &str = "127.0.0.2:80";

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn https(text: &str) -> Option<Https> {
        let listeners = [PLAIN, OTHER].map(|address| address.parse().unwrap());
        // Others were there before these.
        let ids = [ListenerId(7), ListenerId(8)];
        Https::new(&config(text), ids.into_iter().zip(listeners))
    }

    #[track_caller]
    fn check(text: &str, host: &str, listener: u32, scheme: Scheme, expected: &str) {
        let https = https(text).unwrap();
        let host = Host::parse(host).unwrap();
        let shown = match https.demand(&host, ListenerId(listener + 7), scheme, "/a") {
            Demand::Nothing => "nothing",
            Demand::Redirect => "redirect",
            Demand::Promise(value) => value.to_str().unwrap(),
        };
        assert_eq!(shown, expected, "{text} {host} {listener}");
    }

    #[test]
    fn where_nothing_is_asked_for_there_is_nothing_to_look_up() {
        assert!(https("").is_none());
        assert!(https("port = 8443\nhsts_subdomains = true").is_none());
        assert!(https("[domains.\"m3o.app\"]\nredirect = false").is_none());
        assert!(https("hsts = '0s'").is_some());
    }

    #[test]
    fn only_plain_http_is_redirected_and_nothing_is_promised_over_it() {
        let on = "redirect = true";
        check(on, "a.example", 0, Scheme::Http, "redirect");
        check(on, "a.example", 0, Scheme::Https, "max-age=31536000");
        check("hsts = '1d'", "a.example", 0, Scheme::Http, "nothing");
        check(
            "hsts = '1d'",
            "a.example",
            0,
            Scheme::Https,
            "max-age=86400",
        );
    }

    #[test]
    fn a_year_is_promised_by_whoever_redirects_and_nothing_more() {
        let promises = |text: &str, expected| check(text, "a.example", 0, Scheme::Https, expected);
        promises("redirect = true\nhsts = '0s'", "max-age=0");
        promises("redirect = true\nhsts = '10m'", "max-age=600");
        promises(
            "redirect = true\nhsts_subdomains = true",
            "max-age=31536000; includeSubDomains",
        );
        promises(
            "hsts = '730d'\nhsts_subdomains = true\nhsts_preload = true",
            "max-age=63072000; includeSubDomains; preload",
        );
    }

    #[test]
    fn a_domain_stands_over_the_listener_and_that_over_the_section() {
        let text = "hsts = '1d'\n\
            [listeners.\"127.0.0.2:80\"]\nredirect = true\n\
            [domains.\"m3o.app\"]\nredirect = true\n\
            [domains.\"blog.m3o.app\"]\nhsts = '2d'\n\
            [domains.\"old.m3o.app\"]\nredirect = false";
        check(text, "a.example", 0, Scheme::Http, "nothing");
        check(text, "a.example", 1, Scheme::Http, "redirect");
        check(text, "m3o.app", 0, Scheme::Http, "redirect");
        check(text, "x.y.M3O.app.:81", 0, Scheme::Http, "redirect");
        check(text, "evilm3o.app", 0, Scheme::Http, "nothing");
        check(text, "old.m3o.app", 1, Scheme::Http, "nothing");
        check(text, "new.old.m3o.app", 1, Scheme::Http, "nothing");
        // What the closest one leaves open, the next one says.
        check(text, "blog.m3o.app", 0, Scheme::Http, "redirect");
        check(text, "blog.m3o.app", 0, Scheme::Https, "max-age=172800");
        check(text, "m3o.app", 0, Scheme::Https, "max-age=86400");
        // One that is gone has what holds for all.
        check(text, "a.example", 9, Scheme::Http, "nothing");
        check(text, "m3o.app", 9, Scheme::Http, "redirect");
        check(text, "a.example", 9, Scheme::Https, "max-age=86400");
    }

    #[test]
    fn a_challenge_of_an_authority_is_answered_over_plain_http() {
        let https = https("redirect = true").unwrap();
        let host = Host::parse("blog.m3o.app").unwrap();
        let demand = |path| https.demand(&host, ListenerId(0), Scheme::Http, path);
        assert_eq!(demand("/.well-known/acme-challenge/x"), Demand::Nothing);
        assert_eq!(demand("/.well-known/acme-challenge"), Demand::Redirect);
        assert_eq!(demand("/.well-known/other"), Demand::Redirect);
        assert_eq!(demand("/a/.well-known/acme-challenge/x"), Demand::Redirect);
    }

    #[test]
    fn a_redirect_keeps_the_target_to_the_byte() {
        let leads = |text: &str, host: &str, target: &'static str, expected: &str| {
            let https = https(text).unwrap();
            let host = Host::parse(host).unwrap();
            let response = https.redirect(&host, &Uri::from_static(target)).unwrap();
            assert_eq!(response.status(), 308);
            assert_eq!(response.headers()["location"], expected, "{target}");
        };
        let on = "redirect = true";
        let app = "blog.m3o.app:8080";
        leads(on, app, "/", "https://blog.m3o.app/");
        leads(
            on,
            app,
            "/a//b/../%2e?x=%20&y=a+b&?",
            "https://blog.m3o.app/a//b/../%2e?x=%20&y=a+b&?",
        );
        leads(
            on,
            app,
            "//evil.example/",
            "https://blog.m3o.app//evil.example/",
        );
        leads(on, app, "http://other.example?q", "https://blog.m3o.app/?q");
        leads(on, app, "*", "https://blog.m3o.app/");
        leads(on, app, "blog.m3o.app:443", "https://blog.m3o.app/");
        leads(on, "[::1]:80", "/a", "https://[::1]/a");
        leads(
            "redirect = true\nport = 8443",
            app,
            "/a",
            "https://blog.m3o.app:8443/a",
        );
    }

    #[test]
    fn lists_of_browsers_take_a_year_with_all_names_under_it() {
        let count = |text: &str| config(text).unlistable().count();
        assert_eq!(count(""), 0);
        assert_eq!(count("hsts_preload = true"), 1);
        assert_eq!(count("redirect = true\nhsts_preload = true"), 1);
        let fine = "redirect = true\nhsts_preload = true\nhsts_subdomains = true";
        assert_eq!(count(fine), 0);
        let text = format!("{fine}\n[domains.\"m3o.app\"]\nhsts = '364d'");
        let config = config(&text);
        let name: HostName = "m3o.app".parse().unwrap();
        assert_eq!(
            config.unlistable().collect::<Vec<_>>(),
            [Place::Domain(&name)]
        );
    }
}
