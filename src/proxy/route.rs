//! Decides where a request goes, by host and path alone. Does no I/O.

use crate::domains::{Domains, PROOF_PATH};
use crate::host::{Host, Under};
use crate::hosts::{HostName, Hosts};
use crate::id::{LinkId, WorkloadId};
use crate::resolve::{Workload, WorkloadKind};
use crate::telemetry::metrics::RouteKind;
use crate::upstream::ShortLink;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// To an app or a function.
    Workload(Workload),
    /// To the list of apps.
    Index,
    /// To the M3O API: `<service>/<endpoint>`, perhaps with a third segment.
    Api(&'a str),
    /// To where a short link leads.
    Link(ShortLink),
    /// To a verification; with the id of `/user/<id>`, which stands for a missing token.
    Verify(Option<&'a str>),
    /// To the proof of a custom domain that is awaited: this token.
    Proof(&'a str),
    /// Nowhere.
    Unknown,
}

impl Route<'_> {
    /// The name of its kind in metrics and logs.
    #[must_use]
    pub fn kind(&self) -> RouteKind {
        match self {
            Self::Workload(workload) => match workload.kind {
                WorkloadKind::App => RouteKind::App,
                WorkloadKind::Function => RouteKind::Function,
            },
            Self::Index => RouteKind::Index,
            Self::Api(_) => RouteKind::Api,
            Self::Link(_) => RouteKind::Link,
            Self::Verify(_) => RouteKind::Verify,
            Self::Proof(_) => RouteKind::Proof,
            Self::Unknown => RouteKind::Unknown,
        }
    }
}

/// The route of a request for `path` (as it was sent, not decoded) at `host`. The first match wins.
#[must_use]
pub fn route<'a>(host: &Host<'_>, path: &'a str, hosts: &Hosts, domains: &Domains) -> Route<'a> {
    let mut is_ours = false;
    for suffix in &hosts.app {
        match host.under(suffix.as_str()) {
            Under::Label(label) => return workload(WorkloadKind::App, label),
            Under::Itself if path == "/" => return Route::Index,
            Under::Deeper => return Route::Unknown,
            Under::Itself => is_ours = true,
            Under::Elsewhere => {}
        }
    }
    for suffix in &hosts.function {
        match host.under(suffix.as_str()) {
            Under::Label(label) => return workload(WorkloadKind::Function, label),
            Under::Deeper => return Route::Unknown,
            Under::Itself => is_ours = true,
            Under::Elsewhere => {}
        }
    }
    if names(&hosts.user, host) {
        return Route::Verify(path.strip_prefix("/user/").and_then(one_segment));
    }
    let is_link = names(&hosts.url, host);
    if !is_ours && !is_link {
        if let Some(id) = domains.app_of(host.name()) {
            let kind = WorkloadKind::App;
            return Route::Workload(Workload { kind, id });
        }
        if let Some(token) = path.strip_prefix(PROOF_PATH)
            && domains.awaits(host.name(), token)
        {
            return Route::Proof(token);
        }
    }
    by_path(host, path, is_link)
}

fn workload(kind: WorkloadKind, label: &str) -> Route<'static> {
    WorkloadId::parse(label).map_or(Route::Unknown, |id| Route::Workload(Workload { kind, id }))
}

/// The routes of every host that is neither of apps, nor of functions, nor of verification, nor a custom
/// domain; with `is_link`, of short links.
fn by_path<'a>(host: &Host<'_>, path: &'a str, is_link: bool) -> Route<'a> {
    let (first, rest) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .unwrap_or_default();
    match first {
        "api" | "v1" if is_endpoint(rest) => return Route::Api(rest),
        "u" | "url" => {
            if let Some(id) = one_segment(rest) {
                return LinkId::parse(id)
                    .map_or(Route::Unknown, |id| Route::Link(ShortLink::Id(id)));
            }
        }
        "user" => {
            if let Some(id) = one_segment(rest) {
                return Route::Verify(Some(id));
            }
        }
        _ => {}
    }
    if is_link && path.len() > 1 && path.starts_with('/') {
        // Links are stored as people paste them, whatever scheme and port this request came by.
        return Route::Link(ShortLink::Url(format!("https://{host}{path}")));
    }
    Route::Unknown
}

fn names(known: &[HostName], host: &Host<'_>) -> bool {
    known.iter().any(|known| known.as_str() == host.name())
}

fn one_segment(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

/// Whether whoever asks for `path` means the API, also where there is no such endpoint.
#[must_use]
pub fn is_of_the_api(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/v1/")
}

/// Two or three clean segments: nothing that could leave `/v1/` or needs decoding.
fn is_endpoint(path: &str) -> bool {
    let clean = |segment: &str| {
        (1..=64).contains(&segment.len())
            && segment.starts_with(|first: char| first.is_ascii_alphanumeric())
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let mut segments = 0;
    for segment in path.split('/') {
        segments += 1;
        if segments > 3 || !clean(segment) {
            return false;
        }
    }
    segments >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::Standing;

    fn check(host: &str, path: &str, expected: &str) {
        let hosts = Hosts::default();
        let domains = Domains::default();
        let shop = WorkloadId::parse("shop").unwrap();
        let standing = |name: &str| match name {
            "awaited.example" => Standing::Awaited("t0ken".into()),
            _ => Standing::Proven(shop),
        };
        // Names that became ours after they were proven, among them.
        let names = "shop.example xn--bcher-kva.example awaited.example m3o.app blog.m3o.app m3o.sh m3o.one user.m3o.com";
        domains.apply(
            names
                .split(' ')
                .map(|name| (name.into(), Some(standing(name)))),
        );
        let host = Host::parse(host).unwrap();
        let shown = match route(&host, path, &hosts, &domains) {
            Route::Workload(workload) => match workload.kind {
                WorkloadKind::App => format!("app {}", workload.id),
                WorkloadKind::Function => format!("function {}", workload.id),
            },
            Route::Index => "index".to_owned(),
            Route::Api(endpoint) => format!("api {endpoint}"),
            Route::Link(ShortLink::Id(id)) => format!("link {id}"),
            Route::Link(ShortLink::Url(url)) => format!("link {url}"),
            Route::Verify(id) => format!("verify {}", id.unwrap_or("-")),
            Route::Proof(token) => format!("proof {token}"),
            Route::Unknown => "unknown".to_owned(),
        };
        assert_eq!(shown, expected, "{host} {path}");
    }

    #[test]
    fn a_label_before_an_app_host_is_an_app_whatever_the_path() {
        check("blog.m3o.app", "/", "app blog");
        check("blog.m3o.app", "/api/helloworld/call", "app blog");
        check("blog.m3o.app", "/v1/helloworld/call", "app blog");
        check("blog.m3o.app", "/u/abc", "app blog");
        check("blog.m3o.app", "/user/abc", "app blog");
        check("BLOG.M3O.APP", "/", "app blog");
        check("blog.m3o.app.", "/", "app blog");
        check("blog.m3o.app:8080", "/", "app blog");
        check("a.m3o.app", "/", "app a");
        check("7.m3o.app", "/", "app 7");
        check("a-b-c.m3o.app", "/", "app a-b-c");
        check("xn--bcher-kva.m3o.app", "/", "app xn--bcher-kva");
        check("m3o.m3o.app", "/", "app m3o");
        check(
            &format!("{}.m3o.app", "x".repeat(63)),
            "/",
            &format!("app {}", "x".repeat(63)),
        );
    }

    #[test]
    fn a_label_that_is_no_id_leads_nowhere() {
        check("-a.m3o.app", "/", "unknown");
        check("a-.m3o.app", "/", "unknown");
        check("a_b.m3o.app", "/", "unknown");
        check(".m3o.app", "/", "unknown");
        check(&format!("{}.m3o.app", "x".repeat(64)), "/", "unknown");
        check("-a.m3o.sh", "/", "unknown");
        check("a_b.m3o.app", "/api/helloworld/call", "unknown");
    }

    #[test]
    fn a_host_that_only_ends_like_ours_is_unknown() {
        check("evilm3o.app", "/", "unknown");
        check("evilm3o.sh", "/", "unknown");
        check("m3o.app.evil.com", "/", "unknown");
        check("blog.m3o.app.evil.com", "/", "unknown");
        check("notuser.m3o.com", "/", "unknown");
        check("xm3o.one", "/abc", "unknown");
    }

    #[test]
    fn more_than_one_label_before_our_hosts_leads_nowhere() {
        check("a.b.m3o.app", "/", "unknown");
        check("a.b.m3o.app", "/api/helloworld/call", "unknown");
        check("a.b.c.m3o.app", "/u/abc", "unknown");
        check("a.b.m3o.sh", "/", "unknown");
        check("a..m3o.app", "/", "unknown");
        check("..m3o.app", "/", "unknown");
    }

    #[test]
    fn a_label_before_a_function_host_is_a_function() {
        check("hello.m3o.sh", "/", "function hello");
        check("hello.m3o.sh", "/api/x/y", "function hello");
        check("hello.M3O.sh.:443", "/a/b/c", "function hello");
    }

    #[test]
    fn the_app_host_itself_is_the_index_at_its_root_only() {
        check("m3o.app", "/", "index");
        check("M3O.app.:80", "/", "index");
        check("m3o.app", "/x", "unknown");
        check("m3o.app", "/index.html", "unknown");
        check("m3o.app", "/api/helloworld/call", "api helloworld/call");
        check("m3o.app", "/u/abc", "link abc");
        check("m3o.sh", "/", "unknown");
        check("m3o.sh", "/v1/helloworld/call", "api helloworld/call");
    }

    #[test]
    fn every_path_of_a_user_host_is_a_verification() {
        check("user.m3o.com", "/", "verify -");
        check("USER.m3o.com:8080", "/", "verify -");
        check("user.m3o.com", "/anything/at/all", "verify -");
        check("user.m3o.com", "/user/t0ken", "verify t0ken");
        check("user.m3o.com", "/user/a/b", "verify -");
        check("user.m3o.com", "/api/helloworld/call", "verify -");
        check("a.user.m3o.com", "/", "unknown");
    }

    #[test]
    fn two_or_three_clean_segments_are_a_call_of_the_api_on_any_other_host() {
        check("localhost", "/api/helloworld/call", "api helloworld/call");
        check("localhost", "/v1/helloworld/Call", "api helloworld/Call");
        check("127.0.0.1", "/v1/db/tables/list", "api db/tables/list");
        check("[::1]", "/v1/app/Resolve", "api app/Resolve");
        check("example.com", "/api/url/create", "api url/create");
        check("m3o.one", "/api/url/create", "api url/create");
        check("localhost", "/api/a.b/c-d_e", "api a.b/c-d_e");
        check("localhost", "/api/a/b/c/d", "unknown");
        check("localhost", "/api/helloworld", "unknown");
        check("localhost", "/api/helloworld/", "unknown");
        check("localhost", "/api//call", "unknown");
        check("localhost", "/api/helloworld/call/", "unknown");
        check("localhost", "/api/", "unknown");
        check("localhost", "/api", "unknown");
        check("localhost", "//api/helloworld/call", "unknown");
        check("localhost", "/API/helloworld/call", "unknown");
        check("localhost", "/v2/helloworld/call", "unknown");
        check("localhost", "/api/../v1/x", "unknown");
        check("localhost", "/api/./call", "unknown");
        check("localhost", "/api/helloworld/..", "unknown");
        check("localhost", "/api/hello%2fworld/call", "unknown");
        check("localhost", "/api/hello world/call", "unknown");
        check("localhost", "/api/helloworld/call;x", "unknown");
        check(
            "localhost",
            &format!("/api/a/{}", "x".repeat(65)),
            "unknown",
        );
    }

    #[test]
    fn u_and_url_lead_to_short_links_on_any_other_host() {
        check("localhost", "/u/abc", "link abc");
        check("localhost", "/url/AbC_-9", "link AbC_-9");
        check("m3o.one", "/u/abc", "link abc");
        check(
            "example.com",
            &format!("/u/{}", "x".repeat(128)),
            &format!("link {}", "x".repeat(128)),
        );
        check("localhost", &format!("/u/{}", "x".repeat(129)), "unknown");
        check("localhost", "/u/a.b", "unknown");
        check("localhost", "/u/a%20b", "unknown");
        check("localhost", "/u/", "unknown");
        check("localhost", "/u", "unknown");
        check("localhost", "/u/a/b", "unknown");
        check("localhost", "/url/", "unknown");
        check("localhost", "/U/abc", "unknown");
        check("m3o.one", "/u/a.b", "unknown");
    }

    #[test]
    fn every_other_path_of_a_url_host_is_a_short_link_by_its_whole_url() {
        check("m3o.one", "/abc", "link https://m3o.one/abc");
        check("M3O.one.:8080", "/abc", "link https://m3o.one/abc");
        check("m3o.one", "/a/b", "link https://m3o.one/a/b");
        check("m3o.one", "/u/", "link https://m3o.one/u/");
        check("m3o.one", "/api/x", "link https://m3o.one/api/x");
        check("m3o.one", "/", "unknown");
        check("m3o.one", "*", "unknown");
        check("example.com", "/abc", "unknown");
    }

    #[test]
    fn user_and_an_id_is_a_verification_on_any_other_host() {
        check("localhost", "/user/t0ken", "verify t0ken");
        check("example.com", "/user/a%20b", "verify a%20b");
        check("m3o.one", "/user/x", "verify x");
        check("localhost", "/user/", "unknown");
        check("localhost", "/user", "unknown");
        check("localhost", "/user/a/b", "unknown");
    }

    #[test]
    fn every_path_of_a_custom_domain_is_its_apps() {
        for path in [
            "/",
            "/a/b",
            "/api/helloworld/call",
            "/v1/a/b",
            "/u/abc",
            "/user/abc",
            "*",
        ] {
            check("shop.example", path, "app shop");
            check("SHOP.Example.:8443", path, "app shop");
            check("xn--bcher-kva.example", path, "app shop");
        }
        check("www.shop.example", "/", "unknown");
        check("www.shop.example", "/u/abc", "link abc");
        check("evilshop.example", "/", "unknown");
    }

    #[test]
    fn a_proof_is_found_only_where_it_is_awaited() {
        let path = "/.well-known/m3o-domain-verification/t0ken";
        check("awaited.example", path, "proof t0ken");
        check("awaited.example", &format!("{path}x"), "unknown");
        check("awaited.example", &format!("{path}/"), "unknown");
        check("awaited.example", "/", "unknown");
        check("awaited.example", "/u/abc", "link abc");
        check("www.awaited.example", path, "unknown");
        check("localhost", path, "unknown");
        check("shop.example", path, "app shop");
    }

    #[test]
    fn anything_else_leads_nowhere() {
        check("localhost", "/", "unknown");
        check("example.com", "/favicon.ico", "unknown");
        check("localhost", "*", "unknown");
        check("localhost", "", "unknown");
    }
}
