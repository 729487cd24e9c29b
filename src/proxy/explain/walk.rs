//! The way of a request up to its route.

use std::net::SocketAddr;

use http::HeaderValue;

use super::question::Asked;
use super::report::{Answer, Explanation, Step, plain};
use super::{Entrance, Sources};
use crate::id::RequestId;
use crate::proxy::authority;
use crate::proxy::error::Error;
use crate::proxy::form::Form;
use crate::proxy::headers::Trust;
use crate::proxy::route::{self, Route};
use crate::proxy::{Client, challenge, check, headers, named, proof};
use crate::rates::Rates;
use crate::server;
use crate::settings::{Limits, Timeouts};
use crate::telemetry::metrics::RouteKind;
use crate::telemetry::redact;
use crate::units::{duration, size};
use crate::wire::peer::ListenerId;
use crate::wire::timer::Timer;
use crate::wire::{Body, Peer, Request, Response, Scheme};

/// One request on its way.
pub(super) struct Walk<'a> {
    pub(super) sources: &'a Sources,
    pub(super) asked: &'a Asked,
    steps: Vec<Step>,
    /// The rates that count for it; none where there are none, or its client is exempt.
    pub(super) rates: Option<&'a Rates>,
}

/// What a request ends with, where it is no error.
pub(super) enum End {
    /// An answer of our own.
    Ours(Response),
    /// Ours, by what somebody else says: words for it.
    Depends(String),
    /// No answer: the connection ends before there is a request.
    Nothing(String),
}

impl<'a> Walk<'a> {
    pub(super) fn new(sources: &'a Sources, asked: &'a Asked) -> Self {
        Self {
            sources,
            asked,
            steps: Vec::new(),
            rates: None,
        }
    }

    pub(super) async fn run(mut self) -> Explanation {
        let mut kind = RouteKind::Unknown;
        let read = self.asked.request(self.limits());
        let (target, ended) = match read {
            Ok(head) => {
                let mut request = head.map(|()| Body::Empty);
                let target = request.uri().clone();
                let ended = self.follow(&mut request, &mut kind).await;
                (Some(target), ended.map_err(|error| told(&error, kind)))
            }
            Err(bad) => {
                let keys = [
                    key("limits.header", size::format(self.limits().header)),
                    key("limits.headers", self.limits().headers),
                ];
                self.step("request", "no request that is taken", &keys);
                let answer = Answer {
                    status: Some(server::status_of(bad).as_u16()),
                    error: Some("http_request_error".to_owned()),
                    text: bad.to_string(),
                };
                (None, Err(answer))
            }
        };
        let answer = match ended {
            Ok(End::Ours(response)) => {
                let status = response.status();
                Answer {
                    status: Some(status.as_u16()),
                    error: None,
                    text: status.canonical_reason().unwrap_or_default().to_owned(),
                }
            }
            Ok(End::Depends(text) | End::Nothing(text)) => Answer {
                status: None,
                error: None,
                text: plain(&text),
            },
            Err(answer) => answer,
        };
        Explanation {
            request: plain(&self.shown(target.as_ref(), kind)),
            steps: self.steps,
            answer,
        }
    }

    /// The request as the log would have it. Where a path may be a token, none is shown.
    fn shown(&self, target: Option<&http::Uri>, kind: RouteKind) -> String {
        let asked = self.asked;
        let method = redact::method(&asked.method);
        let (scheme, host) = (asked.scheme.as_str(), redact::host(&asked.host));
        let port = match asked.port == asked.scheme.default_port() {
            true => String::new(),
            false => format!(":{}", asked.port),
        };
        let target = match (target, kind) {
            (Some(target), RouteKind::Verify) => hidden_path(target),
            (Some(target), _) => shown_target(target),
            (None, _) => format!("/{}", redact::HIDDEN),
        };
        format!("{method} {scheme}://{host}{port}{target}")
    }

    /// As `Proxy::answer` goes.
    async fn follow(&mut self, request: &mut Request, kind: &mut RouteKind) -> Result<End, Error> {
        let (peer, trust) = match self.arrive() {
            Ok(arrived) => arrived,
            Err(why) => return Ok(End::Nothing(why.to_owned())),
        };
        let sources = self.sources;
        let settings = &sources.settings;
        let challenges = sources.challenges.as_ref();
        let proof = challenges.and_then(|open| challenge::answer(open, request, peer.scheme));
        if let Some(proof) = proof {
            self.step(
                "challenge",
                "an authority's, answered before any route",
                &[],
            );
            return Ok(End::Ours(proof));
        }
        let within = match &settings.rates {
            None => Ok(()),
            Some(rates) => {
                let trusted = &settings.trusted;
                let client = headers::client_address(request.headers(), &peer, trust, trusted);
                self.count_peer(rates, client)
            }
        };
        let authority = match authority::authority(request) {
            Ok(authority) => authority,
            Err(bad) => return within.and(Err(bad.into())),
        };
        if let Ok(host) = authority::host(&authority) {
            self.step("authority", host.name(), &[]);
        }
        let host = match named(&authority, &peer) {
            Ok(host) => host,
            Err(error) => return within.and(Err(error)),
        };
        let uri = request.uri().clone();
        let route = route::route(&host, uri.path(), &settings.hosts, &settings.domains);
        *kind = route.kind();
        self.step("route", &name_of(&route), &self.decided(&route, &host));
        let stays = matches!(route, Route::Proof(_));
        within?;
        if let Some(end) = self.https(request, &peer, trust, &host, stays)? {
            return Ok(end);
        }
        self.check(request)?;
        let client = Client {
            peer: &peer,
            trust,
            // Who asks what would become of a request has sent none that counts.
            rates: None,
            public: headers::public_origin(request.headers(), &peer, trust, &authority),
            id: HeaderValue::from_static("NEW"),
            authority: authority.clone(),
        };
        match route {
            Route::Workload(workload) => self.workload(workload, request, &client).await,
            Route::Api(endpoint) => self.api(endpoint, request, &client),
            Route::Link(link) => self.link(&link, request).await,
            Route::Verify(id) => self.verify(id, request),
            Route::Proof(token) => proof::respond(token, request.method()).map(End::Ours),
            Route::Index => self.index(request),
            Route::Unknown => Err(Error::Unknown),
        }
    }

    /// Who comes, and by which listener.
    ///
    /// # Errors
    /// Why there is no connection: over TLS, and no certificate is for the name.
    fn arrive(&mut self) -> Result<(Peer, Trust), &'static str> {
        let sources = self.sources;
        let asked = self.asked;
        let all = || sources.listeners.iter();
        let fits = |known: &&Entrance| known.scheme == asked.scheme;
        let is_exact = |known: &&Entrance| known.address.port() == asked.port;
        let exact = all().filter(fits).find(is_exact);
        let found = exact.or_else(|| all().find(fits)).or_else(|| all().next());
        let (scheme, id) = match found {
            Some(Entrance {
                id,
                address,
                scheme,
            }) => {
                let keyed = match scheme {
                    Scheme::Http => "listen.http",
                    Scheme::Https => "listen.https",
                };
                let what = match *scheme == asked.scheme {
                    true => format!("{address}, {}", scheme.as_str()),
                    false => format!(
                        "nothing here speaks {}: as it comes over {} from what does, to {address}",
                        asked.scheme.as_str(),
                        scheme.as_str()
                    ),
                };
                self.step("listener", &what, &[keyed.to_owned()]);
                (*scheme, *id)
            }
            None => (asked.scheme, ListenerId::default()),
        };
        let peer = Peer::new(SocketAddr::new(asked.from, 0), scheme, Timer::new());
        let mut peer = peer.by(id);
        let trust = sources.settings.trust(peer.address.ip());
        let who = match trust {
            Trust::Proxy => "a trusted proxy",
            Trust::Stranger => "a stranger",
        };
        let trusted = &sources.settings.trusted;
        let nets: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let keys = [key(
            "backends.trusted_proxies",
            format!("[{}]", nets.join(", ")),
        )];
        self.step("client", &format!("{}, {who}", peer.address.ip()), &keys);
        if scheme == Scheme::Https {
            peer.secured = Some(self.handshake()?);
        }
        Ok((peer, trust))
    }

    /// What no route takes.
    fn check(&mut self, request: &Request) -> Result<(), Error> {
        let limits = self.limits().clone();
        let target = request.uri().path_and_query();
        let target = target.map_or(0, |target| target.as_str().len());
        let method = redact::method(request.method().as_str());
        let what = format!("{method}, a target of {}", counted(target, "byte"));
        let keys = [
            key("limits.uri", size::format(limits.uri)),
            key("limits.body", size_or_none(limits.body)),
        ];
        self.step("request", &what, &keys);
        check(request, &limits)
    }

    pub(super) fn limits(&self) -> &'a Limits {
        &self.sources.settings.limits
    }

    pub(super) fn timeouts(&self) -> &'a Timeouts {
        &self.sources.settings.timeouts
    }

    pub(super) fn step(&mut self, name: &str, what: &str, by: &[String]) {
        self.steps.push(Step::new(name, what, by));
    }
}

fn told(error: &Error, kind: RouteKind) -> Answer {
    let response = error.to_response(Form::Json, kind, &RequestId::new());
    Answer {
        status: Some(response.status().as_u16()),
        error: Some(error.kind().as_str().to_owned()),
        text: plain(&error.cause()),
    }
}

/// A key of the configuration as it is written there.
pub(super) fn key(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name} = {value}")
}

/// A key whose value is a time.
pub(super) fn time(name: &str, value: std::time::Duration) -> String {
    key(name, duration::format(value))
}

/// A number of things.
pub(super) fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

fn size_or_none(bytes: u64) -> String {
    match bytes {
        0 => "0, no limit".to_owned(),
        bytes => size::format(bytes),
    }
}

/// Path and query as the log would have them.
pub(super) fn shown_target(target: &http::Uri) -> String {
    let path = redact::path(target.path());
    with_query(&path, target.query())
}

fn hidden_path(target: &http::Uri) -> String {
    let path = match target.path() {
        "/" => "/".to_owned(),
        _ => format!("/{}", redact::HIDDEN),
    };
    with_query(&path, target.query())
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{}", redact::query(query)),
        None => path.to_owned(),
    }
}

fn name_of(route: &Route<'_>) -> String {
    match route {
        Route::Workload(workload) => format!("{} {}", workload.kind.as_str(), workload.id),
        Route::Index => "the list of apps".to_owned(),
        Route::Api(endpoint) => format!("the API, {endpoint}"),
        Route::Link(_) => "a short link".to_owned(),
        Route::Verify(_) => "a verification link".to_owned(),
        Route::Proof(_) => "the proof of a custom domain".to_owned(),
        Route::Unknown => "none".to_owned(),
    }
}
