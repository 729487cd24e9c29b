//! What one request costs in our own code, the network left out: `cargo bench --bench request`.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;

use m3o_ingress::credentials::Secret;
use m3o_ingress::domains::Domains;
use m3o_ingress::host::Host;
use m3o_ingress::hosts::Hosts;
use m3o_ingress::id::{RequestId, WorkloadId};
use m3o_ingress::proxy::headers::{self, Trust};
use m3o_ingress::proxy::parameters::{Parameters, without_key};
use m3o_ingress::proxy::route::route;
use m3o_ingress::rates::{self, Rate, Rates};
use m3o_ingress::resolve::{Backend, WorkloadKind};
use m3o_ingress::telemetry::access::Access;
use m3o_ingress::telemetry::client::Side;
use m3o_ingress::telemetry::exchange::{Exchange, Telemetry};
use m3o_ingress::telemetry::log::{Log, Style};
use m3o_ingress::telemetry::metrics::{AppKind, CacheResult, Metrics, RouteKind};
use m3o_ingress::telemetry::{self, Format};
use m3o_ingress::units::Share;
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Body, Peer, Request, Response, Scheme};

use always::{backend, filled_cache};

mod always;

criterion_group! {
    name = request;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = routing, request_id, parameters, request_fields, response_fields, target, cache_hit, exchange, scrape, rates, line
}
criterion_main!(request);

/// The line of a request, its redaction included; the thread that writes is not in it.
fn line(criterion: &mut Criterion) {
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let peer = Peer::new(client, Scheme::Http, Timer::new());
    let backend = HeaderValue::from_static("10.0.0.7:3000");
    let id = HeaderValue::from_static("0199f3b2-1c1a-7c1e-9d0e-0123456789ab");
    let mut group = criterion.benchmark_group("line");
    for (name, format, access, sample) in [
        ("none", Format::Json, false, Share::ALL),
        ("json", Format::Json, true, Share::ALL),
        ("combined", Format::Combined, true, Share::ALL),
        (
            "json of one in a hundred",
            Format::Json,
            true,
            Share::parse("1/100").expect("a share"),
        ),
    ] {
        let config = telemetry::Config {
            format,
            access,
            sample,
            // A loop makes more lines than any worker, and none may be dropped.
            buffer: 256 << 20,
            ..telemetry::Config::default()
        };
        let metrics = Metrics::new();
        let writer = Log::start(Style::Json, Arc::clone(&metrics), std::io::sink());
        let writer = writer.expect("a thread");
        let log = writer.log();
        log.apply(log.open(&config).expect("no file is opened"));
        let telemetry = Arc::new(Telemetry {
            metrics: Arc::clone(&metrics),
            log: writer.log(),
            access: Access::of(&config),
            tracer: None,
        });
        let mut request = http::Request::new(Body::Empty);
        *request.uri_mut() = Uri::from_static("/posts/1?page=2&sort=date");
        *request.headers_mut() = request_head();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let id = RequestId::from_trusted(&id).expect("an id");
                let trust = Trust::Stranger;
                let mut exchange = Exchange::begin(&telemetry, &request, &peer, trust, id);
                let asking = exchange.asks(Side::Backend, &backend, 3000, &mut request);
                asking.answered(StatusCode::OK);
                drop(exchange.observe(http::Response::new(Body::Empty)));
            });
        });
        assert_eq!(metrics.log_lines_dropped.get(), 0);
    }
}

fn routing(criterion: &mut Criterion) {
    let (hosts, domains) = (Hosts::default(), Domains::default());
    let mut group = criterion.benchmark_group("route");
    for (name, host, path) in [
        ("app", "blog.m3o.app", "/posts/1"),
        ("function", "hello.m3o.sh", "/"),
        ("api", "api.example.com", "/v1/helloworld/call"),
        ("link", "m3o.one", "/u/abc123"),
        ("unknown", "www.example.com", "/favicon.ico"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let host = Host::parse(black_box(host)).expect("a valid host");
                black_box(route(&host, black_box(path), &hosts, &domains));
            });
        });
    }
}

fn request_id(criterion: &mut Criterion) {
    criterion.bench_function("request id", |bencher| bencher.iter(RequestId::new));
}

fn parameters(criterion: &mut Criterion) {
    let query = "api_key=secret&name=J%C3%B6rg+M&tag=a&tag=b&tag=c&limit=25&offset=50";
    let mut group = criterion.benchmark_group("parameters");
    group.bench_function("to json", |bencher| {
        bencher.iter(|| Parameters::parse(black_box(query).as_bytes()).to_json());
    });
    group.bench_function("without key", |bencher| {
        bencher.iter(|| without_key(black_box(query)));
    });
}

/// What a browser sends.
fn request_head() -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        (header::HOST, "blog.m3o.app"),
        (header::CONNECTION, "keep-alive"),
        (header::CACHE_CONTROL, "max-age=0"),
        (header::UPGRADE_INSECURE_REQUESTS, "1"),
        (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64)"),
        (header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.9"),
        (header::COOKIE, "session=4f1c2a9b; theme=dark"),
        (header::REFERER, "https://blog.m3o.app/"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields
}

fn request_fields(criterion: &mut Criterion) {
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let peer = Peer::new(client, Scheme::Http, Timer::new());
    let authority = HeaderValue::from_static("blog.m3o.app");
    let mut group = criterion.benchmark_group("request fields");
    let mut check = |name: &str, trust, fields: &HeaderMap| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || fields.clone(),
                |fields| headers::prepare(fields, Version::HTTP_11, &peer, trust, &authority),
                BatchSize::SmallInput,
            );
        });
    };
    check("of a stranger", Trust::Stranger, &request_head());
    let mut proxied = request_head();
    proxied.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.4"));
    proxied.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    check("of a proxy", Trust::Proxy, &proxied);
}

fn response_fields(criterion: &mut Criterion) {
    let backend = backend();
    let authority = HeaderValue::from_static("blog.m3o.app");
    let mut fields = HeaderMap::new();
    for (name, value) in [
        (header::DATE, "Fri, 20 Nov 2026 12:00:00 GMT"),
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_LENGTH, "1024"),
        (header::CONNECTION, "keep-alive"),
        (header::LOCATION, "http://10.0.0.7:3000/base/posts/2"),
        (
            header::SET_COOKIE,
            "session=4f1c2a9b; Domain=10.0.0.7; Path=/",
        ),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    criterion.bench_function("response fields", |bencher| {
        bencher.iter_batched_ref(
            || fields.clone(),
            |fields| {
                headers::remove_hop_by_hop(fields);
                headers::map_to_public(fields, &backend, Scheme::Https, &authority);
            },
            BatchSize::SmallInput,
        );
    });
}

fn target(criterion: &mut Criterion) {
    let asked = Uri::from_static("/posts/1?page=2&sort=date");
    let mut group = criterion.benchmark_group("target");
    for (name, url) in [
        ("at the root", "http://10.0.0.7:3000/"),
        (
            "below a path and a query",
            "http://10.0.0.7:3000/base?tenant=7",
        ),
    ] {
        let backend = Backend::parse(url).expect("a valid URL");
        group.bench_function(name, |bencher| {
            bencher.iter(|| backend.target(black_box(&asked)));
        });
    }
}

fn cache_hit(criterion: &mut Criterion) {
    let (cached, blog) = filled_cache();
    criterion.bench_function("cache hit", |bencher| {
        bencher.iter(|| {
            let found = cached.resolve(black_box(blog)).now_or_never();
            found.expect("a hit waits for nothing")
        });
    });
}

/// No access log.
fn without_lines() -> telemetry::Config {
    telemetry::Config {
        access: false,
        ..telemetry::Config::default()
    }
}

/// What is counted of a request to an app, without an access log.
fn exchange(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let telemetry = Arc::new(Telemetry {
        metrics: Arc::clone(&metrics),
        log: Log::discard(metrics),
        access: Access::of(&without_lines()),
        tracer: None,
    });
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let peer = Peer::new(client, Scheme::Http, Timer::new());
    let blog = WorkloadId::parse("blog").expect("a valid id");
    let load = telemetry.metrics.load(AppKind::App, blog);
    let id = RequestId::new();
    criterion.bench_function("exchange", |bencher| {
        bencher.iter(|| {
            let request = Request::new(Body::Empty);
            let mut exchange =
                Exchange::begin(&telemetry, &request, &peer, Trust::Stranger, id.clone());
            exchange.route = RouteKind::App;
            exchange.cache = Some(CacheResult::Fresh);
            telemetry.metrics.resolved(AppKind::App, CacheResult::Fresh);
            exchange.load = Some(Arc::clone(&load));
            exchange.in_flight = Some(load.enter(1024, usize::MAX).expect("there is room"));
            let response = Response::new(Body::from(bytes::Bytes::from_static(b"Hello")));
            let mut body = exchange.observe(response).into_body();
            while let Some(frame) = body.frame().now_or_never().expect("it is whole") {
                black_box(frame).expect("it does not fail");
            }
        });
    });
}

/// All series that there can be with what is configured by default.
fn scrape(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let telemetry = Arc::new(Telemetry {
        metrics: Arc::clone(&metrics),
        log: Log::discard(Arc::clone(&metrics)),
        access: Access::of(&without_lines()),
        tracer: None,
    });
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let peer = Peer::new(client, Scheme::Http, Timer::new());
    let id = RequestId::new();
    for number in 0..10_000_u16 {
        let app = WorkloadId::parse(&format!("app{}", number % 1000)).expect("a valid id");
        let load = metrics.load(AppKind::App, app);
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = match number % 3 {
            0 => Method::GET,
            1 => Method::POST,
            _ => Method::PUT,
        };
        let mut exchange =
            Exchange::begin(&telemetry, &request, &peer, Trust::Stranger, id.clone());
        exchange.route =
            [RouteKind::App, RouteKind::Api, RouteKind::Link][usize::from(number % 7 % 3)];
        exchange.in_flight = Some(load.enter(1024, usize::MAX).expect("there is room"));
        exchange.load = Some(load);
        let mut response = Response::new(Body::Empty);
        *response.status_mut() =
            StatusCode::from_u16(200 + number % 400).expect("a status has three digits");
        drop(exchange.observe(response));
    }
    criterion.bench_function("scrape", |bencher| bencher.iter(|| metrics.to_text()));
}

fn rates(criterion: &mut Criterion) {
    let rate = |text: &str| Rate::try_from(text.to_owned()).ok();
    let config = rates::Config {
        peer: rate("1000000/s"),
        key: rate("1000000/s"),
        app: rate("1000000/s"),
        ..rates::Config::default()
    };
    let rates = Rates::new(&config).expect("there are rates");
    let blog = WorkloadId::parse("blog").expect("a valid id");
    let key = Secret::new("4f1c2a9b-4f1c-4f1c-4f1c-4f1c2a9b4f1c");
    let mut group = criterion.benchmark_group("rate");
    group.bench_function("of a client", |bencher| {
        let client = [192, 0, 2, 7].into();
        bencher.iter(|| rates.peer(black_box(client)));
    });
    group.bench_function("of ever other clients", |bencher| {
        let mut bits = 0_u32;
        bencher.iter(|| {
            bits = bits.wrapping_add(0x9e37_79b9);
            rates.peer(IpAddr::from(bits.to_be_bytes()))
        });
    });
    group.bench_function("of a key", |bencher| {
        bencher.iter(|| rates.key(black_box(&key)));
    });
    group.bench_function("of an app", |bencher| {
        bencher.iter(|| rates.app(WorkloadKind::App, black_box(&blog)));
    });
}
