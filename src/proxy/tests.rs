use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::destination::Destination;
use crate::rates;
use crate::resolve;
use crate::telemetry::access::Access;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Hit, LocalAnswer, LocalApi, NoLink, ShortLink, Via};
use crate::wire::timer::Timer;
use crate::wire::{Covers, Secured};

/// An API that has an accident with every call.
struct Clumsy;

impl LocalApi for Clumsy {
    fn call<'a>(
        &'a self,
        _request: Request,
        _pool: &'a Rc<Pool>,
        _tasks: &'a TaskTracker,
    ) -> LocalAnswer<'a> {
        Box::pin(async { panic!("on purpose") })
    }

    fn link(&self, _link: &ShortLink, _hit: Hit) -> Result<Destination, NoLink> {
        panic!("on purpose")
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn proxy(metrics: &Arc<Metrics>) -> Proxy {
    proxy_with(metrics, None)
}

fn proxy_with(metrics: &Arc<Metrics>, rates: Option<Arc<Rates>>) -> Proxy {
    let settings = Settings {
        hosts: Hosts::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        rates,
        trusted: Vec::new(),
        user: verify::Config::default(),
        index: index::Config::default(),
        domains: Default::default(),
        https: None,
    };
    let telemetry = Telemetry {
        metrics: Arc::clone(metrics),
        log: Log::discard(Arc::clone(metrics)),
        access: Access::of(&Default::default()),
        tracer: None,
    };
    let (pool, tasks) = (Pool::for_tests(), TaskTracker::new());
    let upstream = Upstream::new(Via::Local(Arc::new(Clumsy)), pool.clone(), tasks.clone());
    Proxy::new(
        Arc::new(settings),
        Arc::new(telemetry),
        Cache::new(resolve::Config::default(), Arc::clone(metrics)),
        upstream,
        pool,
        tasks,
        Pressure::new(1, Arc::clone(metrics)),
    )
}

#[tokio::test]
async fn a_panic_costs_one_request_and_a_counter() {
    let metrics = Metrics::new();
    let proxy = proxy(&metrics);
    let peer = Peer::new(
        SocketAddr::from(([192, 0, 2, 1], 1)),
        Scheme::Http,
        Timer::new(),
    );
    let status = async |method: Method, host: &str, path: &str| {
        let mut request = Request::default();
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.insert(header::AUTHORIZATION, "Bearer key".parse().unwrap());
        proxy.handle(request, &peer).await.status().as_u16()
    };
    let asking = async {
        assert_eq!(status(Method::POST, "any.example", "/v1/a/b").await, 500);
        assert_eq!(metrics.panics.get(), 1);
        assert_eq!(status(Method::GET, "m3o.one", "/u/link").await, 500);
        assert_eq!(metrics.panics.get(), 2);
        // The question is a task of its own: whoever waits for it is to try again.
        assert_eq!(status(Method::GET, "blog.m3o.app", "/").await, 503);
        assert_eq!(metrics.panics.get(), 3);
        assert_eq!(status(Method::OPTIONS, "any.example", "/v1/a/b").await, 204);
    };
    let local = tokio::task::LocalSet::new();
    let asking = local.run_until(asking);
    tokio::time::timeout(Duration::from_secs(10), asking)
        .await
        .unwrap();
    let text = String::from_utf8(metrics.to_text()).unwrap();
    assert!(text.contains("http_server_active_requests 0\n"), "{text}");
}

/// Of no name.
#[derive(Debug)]
struct Blank;

impl Covers for Blank {
    fn covers(&self, _host: &str) -> bool {
        false
    }
}

fn one_an_hour() -> rates::Config {
    rates::Config {
        peer: rates::Rate::try_from("1/h".to_owned()).ok(),
        ..rates::Config::default()
    }
}

#[tokio::test]
async fn what_came_to_the_wrong_host_counts_too() {
    let local = tokio::task::LocalSet::new();
    let asking = async {
        for (host, expected) in [("a.example", 421), ("a!b", 400), ("", 400)] {
            let proxy = proxy_with(&Metrics::new(), Rates::new(&one_an_hour()));
            let address = SocketAddr::from(([192, 0, 2, 1], 1));
            let mut peer = Peer::new(address, Scheme::Https, Timer::new());
            peer.secured = Some(Secured {
                sni: Some("other.example".into()),
                certificate: Arc::new(Blank),
                version: None,
            });
            for expected in [expected, 429] {
                let mut request = Request::default();
                if !host.is_empty() {
                    let headers = request.headers_mut();
                    headers.insert(header::HOST, host.parse().unwrap());
                }
                let status = proxy.handle(request, &peer).await.status();
                assert_eq!(status, expected, "{host}");
            }
        }
    };
    local.run_until(asking).await;
}

#[tokio::test]
async fn what_an_authority_asks_for_is_never_one_too_many() {
    let config = one_an_hour();
    let challenges = Challenges::new();
    challenges.put_http("token", "token.thumb");
    let local = tokio::task::LocalSet::new();
    let asking = async {
        let proxy = proxy_with(&Metrics::new(), Rates::new(&config)).proving(challenges);
        let peer = Peer::new(
            SocketAddr::from(([192, 0, 2, 1], 1)),
            Scheme::Http,
            Timer::new(),
        );
        let status = async |path: &str| {
            let mut request = Request::default();
            *request.uri_mut() = path.parse().unwrap();
            let host = "nowhere.example".parse().unwrap();
            request.headers_mut().insert(header::HOST, host);
            proxy.handle(request, &peer).await.status().as_u16()
        };
        assert_eq!(status("/").await, 404);
        assert_eq!(status("/").await, 429);
        for _ in 0..3 {
            assert_eq!(status("/.well-known/acme-challenge/token").await, 200);
        }
        // Only what somebody waits for, or this would be a way around.
        assert_eq!(status("/.well-known/acme-challenge/other").await, 429);
    };
    local.run_until(asking).await;
}
