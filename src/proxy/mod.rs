//! One request: an exchange begins, the route decides, a handler answers, the exchange ends.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body::Body as _;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use crate::domains::Domains;
use crate::host::Host;
use crate::hosts::Hosts;
use crate::id::RequestId;
use crate::pool::Pool;
use crate::rates::Rates;
use crate::resolve::{Cache, Cached};
use crate::server::pressure::Pressure;
use crate::settings::{Limits, Timeouts};
use crate::telemetry::exchange::{Exchange, Observed, Telemetry};
use crate::telemetry::load::{InFlight, Load};
use crate::telemetry::metrics::RouteKind;
use crate::tls::challenges::Challenges;
use crate::upstream::Upstream;
use crate::wire::{Body, Handler, Peer, Request, Response, Scheme};
use error::Error;
use form::Form;
use headers::Trust;
use https::{Demand, Https};
use route::Route;

mod api;
mod authority;
mod challenge;
mod error;
pub mod explain;
mod form;
mod forward;
pub mod headers;
pub mod https;
pub mod index;
mod link;
mod page;
pub mod parameters;
mod proof;
mod rate;
pub mod route;
mod upgrade;
pub mod verify;
mod workload;

/// What the proxy reads of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our public names.
    pub hosts: Hosts,
    /// A limit in time for every phase.
    pub timeouts: Timeouts,
    /// A limit in size for everything else.
    pub limits: Limits,
    /// How often clients may ask, and where each stands; `None`: as often as they like.
    pub rates: Option<Arc<Rates>>,
    /// Peers whose word about others is believed.
    pub trusted: Vec<IpNet>,
    /// Verification links.
    pub user: verify::Config,
    /// The list of apps.
    pub index: index::Config,
    /// The custom domains of apps, which change while we run.
    pub domains: Domains,
    /// Who is sent to HTTPS; `None`: nobody is.
    pub https: Option<Arc<Https>>,
}

impl Settings {
    /// Whether `address` is that of a proxy that the configuration trusts.
    fn trust(&self, address: IpAddr) -> Trust {
        match self.trusted.iter().any(|net| net.contains(&address)) {
            true => Trust::Proxy,
            false => Trust::Stranger,
        }
    }
}

/// The proxy of one worker.
#[derive(Debug)]
pub struct Proxy {
    settings: Arc<Settings>,
    telemetry: Arc<Telemetry>,
    challenges: Arc<Challenges>,
    upstream: Rc<Upstream>,
    resolver: Cached<Upstream>,
    pool: Rc<Pool>,
    pressure: Rc<Pressure>,
    /// What is in flight on the routes that lead to no workload, a kind each.
    loads: [Arc<Load>; RouteKind::COUNT],
}

impl Proxy {
    /// A proxy over this worker's `pool` and `upstream`, and the `cache` of all workers.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        telemetry: Arc<Telemetry>,
        cache: Arc<Cache>,
        upstream: Upstream,
        pool: Rc<Pool>,
        tasks: TaskTracker,
        pressure: Rc<Pressure>,
    ) -> Self {
        let upstream = Rc::new(upstream);
        Self {
            settings,
            telemetry,
            challenges: Challenges::new(),
            resolver: Cached::new(cache, Rc::clone(&upstream), tasks),
            upstream,
            pool,
            pressure,
            loads: Default::default(),
        }
    }

    /// Takes the place of `before`: what is in flight there is counted here too.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let loads = before.loads.clone();
        Self { loads, ..self }
    }

    /// The connections to backends.
    #[must_use]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Answers the `challenges` of authorities too.
    #[must_use]
    pub fn proving(self, challenges: Arc<Challenges>) -> Self {
        Self { challenges, ..self }
    }
}

/// Who sent a request, as handlers need it.
struct Client<'a> {
    peer: &'a Peer,
    trust: Trust,
    /// The rates that count for it.
    rates: Option<&'a Rates>,
    /// The authority that it was routed by, as the client wrote it.
    authority: HeaderValue,
    /// Scheme and authority in the address bar of whoever is behind it.
    public: (Scheme, HeaderValue),
    /// The id of the request.
    id: HeaderValue,
}

impl Handler for Proxy {
    type Body = Observed<Body>;

    async fn handle(&self, mut request: Request, peer: &Peer) -> http::Response<Observed<Body>> {
        let trust = self.settings.trust(peer.address.ip());
        let id = request_id(request.headers(), trust);
        let mut exchange = Exchange::begin(&self.telemetry, &request, peer, trust, id);
        let accepted = Form::accepted_by(request.headers());
        let uri = request.uri().clone();
        let demand = match &self.settings.https {
            None => Demand::Nothing,
            Some(https) => demand(https, &request, peer, trust),
        };
        let tunnel = upgrade::is_by_connect(&request);

        // A panic is one request's misfortune: nothing it held is used again.
        let answered = {
            let answer = pin!(self.answer(&mut request, &uri, peer, trust, demand, &mut exchange));
            AssertUnwindSafe(answer).catch_unwind().await
        };
        // Taken apart at once: each step of a chain would move it.
        let mut response = match answered {
            Ok(Ok(response)) if !upgrade::is_no_tunnel(tunnel, &response) => response,
            failed => {
                let error = match failed {
                    Ok(Ok(_no_tunnel)) => Error::BackendUpgrade,
                    Ok(Err(error)) => error,
                    Err(_panic) => {
                        self.telemetry.metrics.panics.inc();
                        Error::Panicked
                    }
                };
                let form = accepted.on(exchange.route, uri.path());
                tell(&error, form, &mut exchange)
            }
        };
        if exchange.route == RouteKind::Verify {
            verify::seal(&mut response);
        }
        if let Demand::Promise(value) = demand {
            // Ours in place of the backend's: browsers heed one of them (RFC 6797, 8.1).
            let name = header::STRICT_TRANSPORT_SECURITY;
            response.headers_mut().insert(name, value.clone());
        }
        if let Some(standing) = exchange.standing {
            rate::tell(&standing, response.headers_mut());
        }
        let id = exchange.id().to_header();
        response.headers_mut().insert(headers::X_REQUEST_ID, id);
        exchange.observe(response)
    }

    fn refused(&self, peer: &Peer, status: StatusCode, id: RequestId) {
        Exchange::refused(&self.telemetry, peer, id, status);
    }

    fn promise(&self, peer: &Peer) -> Option<HeaderValue> {
        self.settings.https.as_ref()?.promise(peer).cloned()
    }

    fn panicked(&self) {
        self.telemetry.metrics.panics.inc();
    }
}

impl Proxy {
    async fn answer(
        &self,
        request: &mut Request,
        uri: &Uri,
        peer: &Peer,
        trust: Trust,
        demand: Demand<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        if let Some(proof) = challenge::answer(&self.challenges, request, peer.scheme) {
            return Ok(proof);
        }
        let settings = &self.settings;
        let (rates, within) = match &settings.rates {
            None => (None, Ok(())),
            Some(rates) => self.begin_counting(rates, request.headers(), peer, trust, exchange),
        };
        let authority = match authority::authority(request) {
            Ok(authority) => authority,
            Err(bad) => return within.and(Err(bad.into())),
        };
        let host = match named(&authority, peer) {
            Ok(host) => host,
            Err(error) => return within.and(Err(error)),
        };
        let route = route::route(&host, uri.path(), &settings.hosts, &settings.domains);
        exchange.route = route.kind();
        // Whoever looks for a proof follows no redirect, and there may be no certificate yet.
        let stays = matches!(route, Route::Proof(_));
        if let (Demand::Redirect, Some(https), false) = (demand, &self.settings.https, stays) {
            within?;
            return https.redirect(&host, uri).ok_or(Error::Target);
        }
        let admitted = within.and_then(|()| self.admit(request, exchange));
        // Boxed, because the future of every request has room for it.
        let mut refused = admitted.err().map(Box::new);
        // The API says so itself, in the way that browsers can read.
        if exchange.route != RouteKind::Api
            && let Some(error) = refused.take()
        {
            return Err(*error);
        }
        let client = Client {
            peer,
            trust,
            rates,
            public: headers::public_origin(request.headers(), peer, trust, &authority),
            id: exchange.id().to_header(),
            authority: authority.clone(),
        };
        // Every idle connection keeps room for the largest of these, so only what nearly all
        // requests are for is not boxed.
        match route {
            Route::Workload(workload) => {
                // Pinned where it is made, as all that is below it: awaited at once it would be copied.
                let answering = pin!(self.workload(workload, request, &client, exchange));
                answering.await
            }
            Route::Api(endpoint) => {
                let answered = self.api(endpoint, request, refused, &client, exchange);
                Ok(Box::pin(answered).await)
            }
            Route::Link(link) => self.link(&link, request, exchange).await,
            Route::Verify(id) => Box::pin(self.verify(id, request, &client, exchange)).await,
            Route::Proof(token) => proof::respond(token, request.method()),
            Route::Index => Box::pin(self.index(request, &client, exchange)).await,
            Route::Unknown => Err(Error::Unknown),
        }
    }

    /// Refuses what no route takes and what there is no room for, before any work is done.
    fn admit(&self, request: &Request, exchange: &mut Exchange) -> Result<(), Error> {
        check(request, &self.settings.limits)?;
        match exchange.route {
            // Each app or function has a count of its own; what leads nowhere costs nothing.
            RouteKind::App | RouteKind::Function | RouteKind::Unknown => {}
            route => {
                let place = self.enter(&self.loads[route as usize], usize::MAX)?;
                exchange.in_flight = Some(place);
            }
        }
        Ok(())
    }

    /// A place among what is in flight to one thing, which has room for `limit` requests and tunnels,
    /// and for fewer requests while this worker has more to do than it can.
    fn enter(&self, load: &Arc<Load>, limit: usize) -> Result<InFlight, Error> {
        load.enter(limit, self.pressure.allowed())
            .map_err(|reason| {
                self.telemetry.metrics.shed(reason);
                Error::Busy
            })
    }
}

/// The host in `authority`, if `peer` may ask for it.
fn named<'a>(authority: &'a HeaderValue, peer: &Peer) -> Result<Host<'a>, Error> {
    let host = authority::host(authority)?;
    match peer.may_ask_for(host.name()) {
        true => Ok(host),
        false => Err(Error::Misdirected),
    }
}

/// Refuses what no route takes.
fn check(request: &Request, limits: &Limits) -> Result<(), Error> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Error::MethodUnknown);
    }
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target as u64 > limits.uri {
        return Err(Error::UriTooLong);
    }
    if limits.body > 0 && request.body().size_hint().lower() > limits.body {
        return Err(Error::BodyTooLarge);
    }
    let mut expectations = request.headers().get_all(header::EXPECT).iter();
    if !expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Error::Expectation);
    }
    Ok(())
}

/// What becomes of `request` for the scheme that it came by. Without a host it has an error to come, which
/// goes with what the handshake asks for.
fn demand<'a>(https: &'a Https, request: &Request, peer: &Peer, trust: Trust) -> Demand<'a> {
    let by_handshake = || https.promise(peer).map_or(Demand::Nothing, Demand::Promise);
    let Ok(authority) = authority::authority(request) else {
        return by_handshake();
    };
    let Ok(host) = authority::host(&authority) else {
        return by_handshake();
    };
    let scheme = headers::public_scheme(request.headers(), peer, trust);
    https.demand(&host, peer.listener, scheme, request.uri().path())
}

/// The answer to an error, noted on its exchange.
fn tell(error: &Error, form: Form, exchange: &mut Exchange) -> Response {
    exchange.error = Some(error.kind());
    if error.is_ours() {
        exchange.cause = Some(error.cause());
    }
    error.to_response(form, exchange.route, exchange.id())
}

fn request_id(headers: &HeaderMap, trust: Trust) -> RequestId {
    let sent = match trust {
        Trust::Proxy => headers.get(headers::X_REQUEST_ID),
        Trust::Stranger => None,
    };
    sent.and_then(RequestId::from_trusted).unwrap_or_default()
}

#[cfg(test)]
mod tests;
