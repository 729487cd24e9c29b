//! What one request costs in our own code, the network left out: `cargo bench --bench request`.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use m3o_ingress::credentials::Secret;
use m3o_ingress::domains::Domains;
use m3o_ingress::host::Host;
use m3o_ingress::hosts::Hosts;
use m3o_ingress::id::{RequestId, WorkloadId};
use m3o_ingress::proxy::headers::{self, Trust};
use m3o_ingress::proxy::parameters::{Parameters, without_key};
use m3o_ingress::proxy::route::route;
use m3o_ingress::rates::{self, Rate, Rates};
use m3o_ingress::resolve::{self, Backend, Cache, Cached, Resolve, Workload, WorkloadKind};
use m3o_ingress::telemetry::metrics::Metrics;
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Peer, Scheme};

criterion_group! {
    name = request;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = routing, request_id, parameters, request_fields, response_fields, target, cache_hit, rates
}
criterion_main!(request);

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

/// Knows one backend, whatever it is asked.
struct Always;

impl Resolve for Always {
    fn is_local(&self) -> bool {
        false
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn resolve(&self, _: Workload) -> Result<Backend, resolve::Error> {
        Ok(backend())
    }
}

fn backend() -> Backend {
    Backend::parse("http://10.0.0.7:3000/base").expect("a valid URL")
}

fn cache_hit(criterion: &mut Criterion) {
    let config = resolve::Config {
        fresh: Duration::from_secs(3600),
        ..resolve::Config::default()
    };
    let cache = Cache::new(config, Metrics::new());
    let cached = Cached::new(cache, Rc::new(Always), TaskTracker::new());
    let blog = Workload {
        kind: WorkloadKind::App,
        id: WorkloadId::parse("blog").expect("a valid id"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let filled = LocalSet::new().block_on(&runtime, cached.resolve(blog));
    filled.expect("the resolver knows it");
    criterion.bench_function("cache hit", |bencher| {
        bencher.iter(|| {
            let found = cached.resolve(black_box(blog)).now_or_never();
            found.expect("a hit waits for nothing")
        });
    });
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
