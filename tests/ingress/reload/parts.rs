//! The parts of a configuration: what each follows, and what of it is carried over.

use std::path::Path;

use m3o_ingress::acme;
use m3o_ingress::credentials::Secret;

use super::*;
use crate::harness::api::json_response;
use crate::harness::ingress::KEY;

/// Holds each request until the gate opens.
fn slow(gate: &Gate) -> Front {
    let held = gate.clone();
    Front::scripted(move |answering| {
        answering.body();
        if answering.target() == "/slow" {
            held.wait();
        }
        answering.write(ok("hello"));
    })
}

#[test]
fn connections_to_backends_go_over_to_a_configuration_that_says_nothing_else_of_them() {
    let front = Front::new();
    let opened = || front.backend.opened();
    front.ingress.get(BLOG, "/").expect(200);
    front.ingress.reload(another_host).unwrap();
    front
        .ingress
        .reload(|config| config.listen.http.push(loopback()))
        .unwrap();
    front.ingress.get(BLOG, "/").expect(200);
    assert_eq!(opened(), 1);
    front
        .ingress
        .reload(|config| config.backends.per_backend = 9)
        .unwrap();
    front.ingress.get(BLOG, "/").expect(200);
    assert_eq!(opened(), 2);
    let idle = front.ingress.metric("m3o_ingress_pool_idle");
    assert_eq!(idle, 1.0, "those of the pool that is gone are gone");
}

#[test]
fn authorities_are_those_that_are_in_their_file_when_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let backend = TestBackend::secure(
        &path("right.pem"),
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure",
    );
    let _other = TestBackend::secure(&path("ca.pem"), "");
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.backends.ca = path("ca.pem").to_str().unwrap().to_owned();
    });
    ingress.get(BLOG, "/").expect(502);
    assert!(!ingress.read_again().unwrap().is_change());
    std::fs::copy(path("right.pem"), path("ca.pem")).unwrap();
    assert_eq!(ingress.read_again().unwrap().renewed, ["backends.ca"]);
    ingress.get(BLOG, "/").expect(200);
    for broken in [Some("no certificate"), None] {
        match broken {
            Some(text) => std::fs::write(path("ca.pem"), text).unwrap(),
            None => std::fs::remove_file(path("ca.pem")).unwrap(),
        }
        let refused = ingress.read_again().unwrap_err().to_string();
        let reason = "backends.ca: cannot read certificates from ";
        assert!(refused.starts_with(reason), "{refused}");
        ingress.get(BLOG, "/").expect(200);
    }
}

#[test]
fn private_backends_that_are_forbidden_are_reached_no_more() {
    let api = TestApi::new();
    let backend = TestBackend::answering(ok("hello"));
    api.resolves("app/Resolve", &[("blog", &backend.url())]);
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.get(BLOG, "/").expect(200);
    ingress
        .reload(|config| config.backends.allow_private = false)
        .unwrap();
    caller.get(BLOG, "/").expect(502);
    ingress
        .reload(|config| config.backends.allow_private = true)
        .unwrap();
    caller.get(BLOG, "/").expect(200);
    assert_eq!(
        api.calls("app/Resolve").len(),
        1,
        "what is known stays known"
    );
}

#[test]
fn what_is_in_flight_is_counted_across_a_reload() {
    let gate = Gate::default();
    let front = slow(&gate);
    let mut waiting = front.ingress.caller();
    waiting.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is in flight", || front.backend.seen().len() == 1);
    front
        .ingress
        .reload(|config| config.limits.per_workload = 1)
        .unwrap();
    front.ingress.get(BLOG, "/").expect(503);
    front
        .ingress
        .reload(|config| config.limits.per_workload = 2)
        .unwrap();
    front.ingress.get(BLOG, "/").expect(200);
    gate.open();
    waiting.reply().expect(200);
}

#[test]
fn fewer_connections_are_let_in_and_whoever_is_in_stays() {
    let front = Front::new();
    let mut first = front.ingress.caller();
    let mut second = front.ingress.caller();
    first.get(BLOG, "/").expect(200);
    second.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| config.limits.per_peer = 2)
        .unwrap();
    front.ingress.caller().reply().expect(503);
    first.get(BLOG, "/").expect(200);
    second.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| config.limits.per_peer = 3)
        .unwrap();
    front.ingress.get(BLOG, "/").expect(200);
}

#[test]
fn another_api_is_asked_and_what_the_first_one_said_is_forgotten() {
    let backends = ["one", "two"].map(|word| TestBackend::answering(ok(word)));
    let apis = [0, 1].map(|which| TestApi::with_app("blog", &backends[which].url()));
    let ingress = TestIngress::before(&apis[0]);
    let mut caller = ingress.caller();
    assert_eq!(caller.get(BLOG, "/").text(), "one");
    let address = format!("http://{}", apis[1].address());
    let keys = changed(&ingress, |config| {
        config.api.as_mut().unwrap().address = address.try_into().unwrap();
    });
    assert_eq!(keys, ["api.address"]);
    assert_eq!(caller.get(BLOG, "/").text(), "two");
}

#[test]
fn another_token_is_sent_with_the_next_call_and_never_shown() {
    let api = TestApi::new();
    api.gives(
        "url/Resolve",
        r#"{"destinationURL":"https://example.com/"}"#,
    );
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.get("m3o.one", "/u/a").expect(302);
    let report = ingress.reload_with(|_, secrets| secrets.api_token = Some(Secret::new("canary")));
    let report = report.unwrap();
    assert_eq!(report.renewed, ["api.token_env"]);
    assert!(report.is_change() && report.changed.is_empty());
    assert!(!format!("{report:?}").contains("canary"));
    caller.get("m3o.one", "/u/b").expect(302);
    let calls = api.calls("url/Resolve");
    assert_eq!(calls[1].field("Authorization"), Some("Bearer canary"));
}

#[test]
fn ages_of_the_cache_change_and_what_it_knows_stays() {
    let api = TestApi::new();
    api.says(
        "app/Resolve",
        json_response(r#"{"url":"http://127.0.0.1:1"}"#),
    );
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    let mut asked = |expected: usize| {
        caller.get(BLOG, "/").expect(502);
        assert_eq!(api.calls("app/Resolve").len(), expected);
    };
    asked(1);
    asked(1);
    ingress
        .reload(|config| {
            config.cache.fresh = Duration::ZERO;
            config.cache.stale = Duration::ZERO;
        })
        .unwrap();
    asked(2);
    asked(3);
    ingress
        .reload(|config| config.cache.fresh = Duration::from_secs(60))
        .unwrap();
    asked(3);
}

#[test]
fn links_of_the_platform_follow_the_hosts() {
    let ingress = TestIngress::embedded();
    ingress.run_app("blog", "http://127.0.0.1:1");
    let url = || {
        let listed = ingress.post_json("app/List", "{}").expect(200).json();
        listed["services"][0]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url(), "https://blog.m3o.app");
    ingress
        .reload(|config| {
            config.hosts.app.insert(0, "apps.example".parse().unwrap());
            config.platform.as_mut().unwrap().public = "http:8080".to_owned().try_into().unwrap();
        })
        .unwrap();
    assert_eq!(url(), "http://blog.apps.example:8080");
}

#[test]
fn another_key_of_the_platform_revokes_the_one_before() {
    let ingress = TestIngress::embedded();
    let calls = |key: &str| {
        let fields = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n");
        let mut caller = ingress.caller();
        caller
            .post("localhost", "/v1/helloworld/Call", &fields, b"{}")
            .status()
    };
    assert_eq!((calls(KEY), calls("other")), (200, 401));
    let report =
        ingress.reload_with(|_, secrets| secrets.platform_key = Some(Secret::new("other")));
    assert_eq!(report.unwrap().renewed, ["platform.key_env"]);
    assert_eq!((calls(KEY), calls("other")), (401, 200));
    let report = ingress.reload_with(|_, secrets| secrets.platform_key = None);
    assert!(!report.unwrap().is_change());
    assert_eq!(calls("other"), 200);
}

/// An authority that cannot be reached.
fn authority_in(folder: &Path) -> acme::Config {
    let folder = folder.display();
    let text = format!(
        "directory = 'https://127.0.0.1:1/directory'\nagree = true\nchallenge = 'http-01'\nfolder = '{folder}'"
    );
    toml::from_str(&text).unwrap()
}

#[test]
fn orders_that_go_by_the_configuration_of_the_start_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| {
        config.listen.https = vec![loopback()];
        config.tls.certs = folder.path().to_owned();
        config.tls.acme = Some(authority_in(folder.path()));
    });
    let limits = ingress.reload(|config| config.limits.uri = 100).unwrap();
    assert!(limits.notes.is_empty(), "{limits:?}");
    let hosts = ingress.reload(another_host).unwrap();
    let [note] = &hosts.notes[..] else {
        panic!("{hosts:?}");
    };
    assert!(
        note.starts_with("tls.acme: orders go by the [hosts]"),
        "{note}"
    );
    let acme = ingress.reload(|config| config.tls.acme = None).unwrap();
    assert!(!acme.is_change());
    assert!(
        acme.restart
            .iter()
            .all(|change| change.key.starts_with("tls.acme."))
    );
    let renewed = ingress.reload_with(|config, secrets| {
        config.tls.acme = Some(authority_in(folder.path()));
        secrets.acme.eab_key = Some(Secret::new("canary"));
    });
    let renewed = renewed.unwrap();
    assert!(renewed.restart.is_empty() && !renewed.is_change());
    assert!(
        renewed.notes[0].starts_with("tls.acme: the secrets"),
        "{renewed:?}"
    );
}
