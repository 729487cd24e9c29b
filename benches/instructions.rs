//! How many instructions our own code takes for parts of a request: run by `benches/instructions`.
//!
//! callgrind counts them, so a busy machine changes nothing, and a change of a few per cent shows. What
//! they cost in time says `benches/request.rs`.

#![expect(
    unused_qualifications,
    missing_docs,
    clippy::exit,
    reason = "what the macros of gungraun expand to"
)]

use std::hint::black_box;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use m3o_ingress::domains::Domains;
use m3o_ingress::host::Host;
use m3o_ingress::hosts::Hosts;
use m3o_ingress::proxy::headers::{self, Trust};
use m3o_ingress::proxy::parameters::Parameters;
use m3o_ingress::proxy::route::route;
use m3o_ingress::resolve::{Backend, Cached, Workload};
use m3o_ingress::wire::encode::{self, Said, SaidLength};
use m3o_ingress::wire::head::{self, HeadLimits, Scan};
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Peer, Scheme};

use always::{Always, backend, filled_cache};

mod always;

library_benchmark_group!(
    name = request,
    benchmarks = [
        routing,
        request_head,
        response_head,
        cache_hit,
        request_fields,
        response_fields,
        request_written,
        parameters
    ]
);
main!(library_benchmark_groups = request);

/// What a browser sends.
const REQUEST: &[u8] = b"GET /posts/1?page=2 HTTP/1.1\r\n\
    Host: blog.m3o.app\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Cookie: session=4f1c2a9b; theme=dark\r\n\
    Referer: https://blog.m3o.app/\r\n\r\n";

/// What wrk and most health checks send.
const SHORT_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Wed, 25 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Connection: keep-alive\r\n\
    Location: http://10.0.0.7:3000/base/posts/2\r\n\
    Set-Cookie: session=4f1c2a9b; Domain=10.0.0.7; Path=/\r\n\r\n";

const LIMITS: HeadLimits = HeadLimits {
    bytes: 32 << 10,
    fields: 128,
};

fn names() -> &'static (Hosts, Domains) {
    Box::leak(Box::new((Hosts::default(), Domains::default())))
}

#[library_benchmark]
#[bench::app(names(), "blog.m3o.app", "/posts/1")]
#[bench::function(names(), "hello.m3o.sh", "/")]
#[bench::api(names(), "api.example.com", "/v1/helloworld/call")]
#[bench::link(names(), "m3o.one", "/u/abc123")]
#[bench::unknown(names(), "www.example.com", "/favicon.ico")]
fn routing((hosts, domains): &'static (Hosts, Domains), host: &'static str, path: &'static str) {
    let host = Host::parse(black_box(host)).expect("a valid host");
    black_box(route(&host, black_box(path), hosts, domains));
}

#[library_benchmark]
#[bench::of_a_browser(Bytes::from_static(REQUEST))]
#[bench::short(Bytes::from_static(SHORT_REQUEST))]
fn request_head(bytes: Bytes) -> http::Request<()> {
    let whole = Scan::default().advance(black_box(&bytes), &LIMITS);
    let whole = whole.expect("a valid head").expect("a whole head");
    head::request(&bytes, &whole, HeaderMap::new()).expect("a valid head")
}

#[library_benchmark]
#[bench::of_a_page(Bytes::from_static(RESPONSE))]
fn response_head(bytes: Bytes) -> http::Response<()> {
    let whole = Scan::default().advance(black_box(&bytes), &LIMITS);
    let whole = whole.expect("a valid head").expect("a whole head");
    head::response(&bytes, &whole, HeaderMap::new()).expect("a valid head")
}

#[library_benchmark]
#[bench::of_an_app(filled_cache())]
fn cache_hit((cached, blog): (Cached<Always>, Workload)) -> Cached<Always> {
    let found = cached.resolve(black_box(blog)).now_or_never();
    let found = found.expect("a hit waits for nothing");
    black_box(found.expect("the resolver knows it"));
    // Given back, so that its end is not counted.
    cached
}

fn parsed_request(bytes: &'static [u8]) -> HeaderMap {
    let bytes = Bytes::from_static(bytes);
    let whole = Scan::default().advance(&bytes, &LIMITS);
    let whole = whole.expect("a valid head").expect("a whole head");
    let request = head::request(&bytes, &whole, HeaderMap::new());
    request.expect("a valid head").headers().clone()
}

fn peer() -> Peer {
    let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
    let peer = Peer::new(client, Scheme::Http, Timer::new());
    // Its text is made at the first request of a connection.
    black_box(peer.address_value());
    peer
}

#[library_benchmark]
#[bench::of_a_browser(parsed_request(REQUEST), peer(), Trust::Stranger)]
#[bench::short(parsed_request(SHORT_REQUEST), peer(), Trust::Stranger)]
#[bench::of_a_proxy(parsed_request(REQUEST), peer(), Trust::Proxy)]
fn request_fields(mut fields: HeaderMap, peer: Peer, trust: Trust) -> (HeaderMap, Peer) {
    let authority = HeaderValue::from_static("blog.m3o.app");
    headers::prepare(&mut fields, Version::HTTP_11, &peer, trust, &authority);
    (fields, peer)
}

fn parsed_response() -> HeaderMap {
    let bytes = Bytes::from_static(RESPONSE);
    let whole = Scan::default().advance(&bytes, &LIMITS);
    let whole = whole.expect("a valid head").expect("a whole head");
    let response = head::response(&bytes, &whole, HeaderMap::new());
    response.expect("a valid head").headers().clone()
}

#[library_benchmark]
#[bench::of_a_page(parsed_response(), backend())]
fn response_fields(mut fields: HeaderMap, backend: Backend) -> (HeaderMap, Backend) {
    let authority = HeaderValue::from_static("blog.m3o.app");
    headers::remove_hop_by_hop(&mut fields);
    headers::map_to_public(&mut fields, &backend, Scheme::Https, &authority);
    (fields, backend)
}

/// The fields as the backend gets them, and room for the bytes.
fn prepared() -> (HeaderMap, BytesMut) {
    let mut fields = parsed_request(REQUEST);
    let authority = HeaderValue::from_static("blog.m3o.app");
    headers::prepare(
        &mut fields,
        Version::HTTP_11,
        &peer(),
        Trust::Stranger,
        &authority,
    );
    (fields, BytesMut::with_capacity(8192))
}

#[library_benchmark]
#[bench::of_a_browser(prepared())]
fn request_written((fields, mut out): (HeaderMap, BytesMut)) -> (HeaderMap, BytesMut) {
    let uri = Uri::from_static("/base/posts/1?page=2");
    let said = Said {
        length: SaidLength::Nothing,
        connection: None,
    };
    encode::request(&mut out, &Method::GET, &uri, &fields, said);
    (fields, out)
}

#[library_benchmark]
#[bench::of_a_query("api_key=secret&name=J%C3%B6rg+M&tag=a&tag=b&tag=c&limit=25&offset=50")]
#[bench::short("name=John")]
fn parameters(query: &'static str) -> Vec<u8> {
    Parameters::parse(black_box(query).as_bytes()).to_json()
}
