//! Where a host and a path lead.

use m3o_ingress::domains::Domains;
use m3o_ingress::host::Host;
use m3o_ingress::hosts::Hosts;
use m3o_ingress::proxy::route::{Route, is_of_the_api, route};
use m3o_ingress::resolve::WorkloadKind;
use m3o_ingress::upstream::ShortLink;

use super::text::first_line;

/// The first line is an authority, the rest a path.
pub fn check(input: &[u8]) {
    let Some((authority, path)) = first_line(input) else {
        return;
    };
    let Ok(host) = Host::parse(authority) else {
        return;
    };
    let name = host.name();
    match route(&host, path, &Hosts::default(), &Domains::default()) {
        Route::Workload(workload) => {
            let suffix = match workload.kind {
                WorkloadKind::App => "m3o.app",
                WorkloadKind::Function => "m3o.sh",
            };
            assert_eq!(name, format!("{}.{suffix}", workload.id));
            let id = workload.id.as_str();
            assert!(!id.contains('.') && !id.starts_with('-') && !id.ends_with('-'));
        }
        Route::Index => assert_eq!((name, path), ("m3o.app", "/")),
        Route::Api(endpoint) => {
            assert!(is_of_the_api(path) && path.ends_with(endpoint), "{path:?}");
            assert!((2..=3).contains(&endpoint.split('/').count()), "{path:?}");
            let url = url::Url::parse(&format!("http://upstream/v1/{endpoint}"));
            let joined = url.expect("an endpoint is a path");
            assert_eq!(
                joined.path(),
                format!("/v1/{endpoint}"),
                "nothing to normalise"
            );
        }
        Route::Link(ShortLink::Id(id)) => {
            let text = id.as_str();
            assert!((1..=128).contains(&text.len()), "{path:?}");
            assert!(path == format!("/u/{text}") || path == format!("/url/{text}"));
        }
        Route::Link(ShortLink::Url(url)) => {
            assert_eq!(url, format!("https://m3o.one{path}"));
            assert_eq!(name, "m3o.one");
        }
        Route::Verify(Some(token)) => {
            assert_eq!(path, format!("/user/{token}"));
            assert!(!token.is_empty() && !token.contains('/'), "{path:?}");
        }
        Route::Verify(None) => assert_eq!(name, "user.m3o.com"),
        Route::Proof(_) => unreachable!("no proof is awaited"),
        Route::Unknown => {}
    }
}
