//! Rates: who is let through how often, what answers say of it, and for whom there is none.

use std::net::IpAddr;

use m3o_ingress::config::Config;
use m3o_ingress::rates::{AppName, Rate};

use crate::harness::api::json_response;
use crate::harness::backend::{ok, response};
use crate::harness::front::{BLOG, Front, check_error};
use crate::harness::http2::{ask, connect, get, run};
use crate::harness::{Caller, Reply, TestApi, TestBackend, TestIngress, eventually};

/// So slow that no test sees it pass.
fn rate(text: &str) -> Option<Rate> {
    Some(Rate::try_from(text.to_owned()).unwrap())
}

fn front(adjust: impl FnOnce(&mut Config)) -> Front {
    Front::scripted_with(adjust, |answering| {
        answering.body();
        answering.write(ok("hello"));
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shed(ingress: &TestIngress, reason: &str) -> f64 {
    ingress.metric(&format!(r#"m3o_ingress_shed_total{{reason="{reason}"}}"#))
}

/// Asserts that it is a 429 in full, of the policy called `name` with a quota of `quota`.
#[track_caller]
fn check_refused(reply: &Reply, name: &str, quota: u32) {
    check_error(reply, &[429], name);
    let wait: u32 = reply.field("Retry-After").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    let limit = format!("\"{name}\";r=0;t={wait}");
    assert_eq!(reply.field("RateLimit"), Some(&*limit));
    let policy = format!("\"{name}\";q={quota};w=3600");
    assert_eq!(reply.field("RateLimit-Policy"), Some(&*policy));
    assert_eq!(
        reply.field("Proxy-Status"),
        Some("m3o-ingress; error=http_request_denied")
    );
}

#[test]
fn a_burst_passes_and_the_next_request_is_a_429_that_says_when_to_come_again() {
    let front = front(|config| config.rates.peer = rate("3/h"));
    let mut caller = front.ingress.caller();
    for left in [2, 1, 0] {
        let reply = caller.get(BLOG, "/").expect(200);
        let limit = reply.field("RateLimit").unwrap();
        assert!(
            limit.starts_with(&format!("\"peer\";r={left};t=")),
            "{limit}"
        );
        assert_eq!(reply.field("RateLimit-Policy"), Some("\"peer\";q=3;w=3600"));
        assert_eq!(reply.field("Retry-After"), None);
    }
    // The connection stays, and what is refused never reaches the backend.
    for _ in 0..2 {
        check_refused(&caller.get(BLOG, "/"), "peer", 3);
    }
    check_refused(&front.ingress.get(BLOG, "/"), "peer", 3);
    assert_eq!(front.backend.seen().len(), 3);
    assert_eq!(shed(&front.ingress, "rate_peer"), 3.0);
    eventually("what was refused is logged", || {
        let lines = front.ingress.access_lines();
        let refused = lines.iter().filter(|line| {
            line["http.response.status_code"] == 429
                && line["proxy_error"] == "http_request_denied"
                && line["cause"].as_str().unwrap().contains("of one client")
        });
        refused.count() == 3
    });
}

#[test]
fn whoever_wants_a_page_gets_one() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    let mut caller = front.ingress.caller();
    caller.get(BLOG, "/").expect(200);
    let reply = caller
        .ask("GET", "/", BLOG, "Accept: text/html\r\n")
        .expect(429);
    assert!(reply.text().contains("too many requests; try again in"));
    assert!(
        reply
            .field("Content-Type")
            .unwrap()
            .starts_with("text/html")
    );
}

#[test]
fn another_client_is_not_affected() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    front.ingress.get(BLOG, "/").expect(200);
    front.ingress.get(BLOG, "/").expect(429);
    let mut other = Caller::connect_from(ip("127.0.0.2"), front.ingress.address);
    other.get(BLOG, "/").expect(200);
    other.get(BLOG, "/").expect(429);
}

#[test]
fn what_leads_nowhere_and_redirects_count_too() {
    let front = front(|config| {
        config.rates.peer = rate("2/h");
        config.https.redirect = true;
    });
    let mut caller = front.ingress.caller();
    caller.get(BLOG, "/").expect(308);
    caller.get("nowhere.example", "/").expect(308);
    check_refused(&caller.get("nowhere.example", "/"), "peer", 2);
}

#[test]
fn the_operator_is_never_counted() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    front.ingress.get(BLOG, "/").expect(200);
    for _ in 0..5 {
        let reply = Caller::connect(front.ingress.admin)
            .get("localhost", "/livez")
            .expect(200);
        assert_eq!(reply.field("RateLimit"), None);
    }
}

#[test]
fn without_rates_nothing_is_said_of_any() {
    let front = front(|_| {});
    let reply = front.ingress.get(BLOG, "/").expect(200);
    assert_eq!(reply.field("RateLimit"), None);
    assert_eq!(reply.field("RateLimit-Policy"), None);
}

#[test]
fn behind_a_trusted_proxy_the_client_that_it_names_counts() {
    let front = front(|config| {
        config.rates.peer = rate("1/h");
        config.backends.trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8"]
            .map(|net| net.parse().unwrap())
            .into();
    });
    let mut proxy = front.ingress.caller();
    let mut ask = |chain: &str| {
        let fields = format!("X-Forwarded-For: {chain}\r\n");
        proxy.ask("GET", "/", BLOG, &fields).status()
    };
    assert_eq!(ask("192.0.2.1"), 200);
    assert_eq!(ask("192.0.2.1"), 429);
    assert_eq!(ask("192.0.2.2"), 200);
    // What stands before the last stranger is that one's word; trusted proxies are passed over.
    assert_eq!(ask("192.0.2.99, 192.0.2.1"), 429);
    assert_eq!(ask("192.0.2.1, 10.0.0.9"), 429);
    assert_eq!(ask("192.0.2.1\r\nX-Forwarded-For: 10.0.0.9, 10.0.0.8"), 429);
    assert_eq!(ask("192.0.2.1, [2001:db8::1]:443"), 200);
    assert_eq!(ask("[2001:db8::2]"), 429);
}

#[test]
fn a_stranger_cannot_name_another_client() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    let mut caller = front.ingress.caller();
    caller.get(BLOG, "/").expect(200);
    for client in ["192.0.2.1", "192.0.2.2", "10.0.0.1"] {
        let fields = format!("X-Forwarded-For: {client}\r\nForwarded: for={client}\r\n");
        caller.ask("GET", "/", BLOG, &fields).expect(429);
    }
}

#[test]
fn behind_the_proxy_protocol_the_client_that_it_names_counts() {
    let front = front(|config| {
        config.rates.peer = rate("1/h");
        config.listen.proxy_protocol = config.listen.http.clone();
        config.backends.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let status = |client: &str| {
        let mut caller = front.ingress.caller();
        caller.send(format!("PROXY TCP4 {client} 198.51.100.1 50000 80\r\n"));
        caller.get(BLOG, "/").status()
    };
    assert_eq!(status("192.0.2.7"), 200);
    assert_eq!(status("192.0.2.7"), 429);
    assert_eq!(status("192.0.2.8"), 200);
}

#[test]
fn networks_that_are_exempt_are_let_through_without_a_word() {
    let front = front(|config| {
        config.rates.peer = rate("1/h");
        config.rates.app = rate("1/h");
        config.rates.exempt = vec!["127.0.0.2/32".parse().unwrap()];
    });
    let mut exempt = Caller::connect_from(ip("127.0.0.2"), front.ingress.address);
    for _ in 0..5 {
        assert_eq!(exempt.get(BLOG, "/").expect(200).field("RateLimit"), None);
    }
    front.ingress.get(BLOG, "/").expect(200);
    front.ingress.get(BLOG, "/").expect(429);
}

#[test]
fn over_http2_it_is_the_same_rate() {
    let front = front(|config| config.rates.peer = rate("2/h"));
    front.ingress.get(BLOG, "/").expect(200);
    let answers = run(async {
        let client = connect(front.ingress.address).await;
        [
            ask(&client, get(BLOG, "/")).await,
            ask(&client, get(BLOG, "/")).await,
        ]
    });
    assert_eq!(answers.each_ref().map(|answer| answer.status()), [200, 429]);
    let limits = answers
        .each_ref()
        .map(|answer| answer.field("ratelimit").unwrap());
    assert!(
        limits
            .iter()
            .all(|limit| limit.starts_with("\"peer\";r=0;t=")),
        "{limits:?}"
    );
    assert!(answers[1].field("retry-after").is_some());
}

#[test]
fn a_handshake_of_a_websocket_counts_as_a_request() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    front.ingress.get(BLOG, "/").expect(200);
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut caller = front.ingress.caller();
    check_refused(&caller.ask("GET", "/ws", BLOG, fields), "peer", 1);
}

#[test]
fn an_upload_that_is_refused_is_no_next_request() {
    let front = front(|config| config.rates.peer = rate("1/h"));
    front.ingress.get(BLOG, "/").expect(200);
    let mut caller = front.ingress.caller();
    let inner = format!("GET /inner HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
    check_refused(&caller.post(BLOG, "/", "", inner.as_bytes()), "peer", 1);
    // Whether the connection stays or not: what was the body is read as nothing else.
    let _whether_it_is_taken = caller.try_send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    if let Ok(reply) = caller.try_reply() {
        assert_eq!(reply.status(), 429);
    }
    assert_eq!(front.backend.seen().len(), 1);
}

#[test]
fn an_app_has_a_rate_whoever_asks_and_one_of_its_own_where_it_is_named() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::new();
    let url = backend.url();
    api.resolves(
        "app/Resolve",
        &[("blog", &url), ("busy", &url), ("other", &url)],
    );
    let ingress = TestIngress::before_with(&api, |config| {
        config.rates.app = rate("2/h");
        let busy = AppName::try_from("busy".to_owned()).unwrap();
        config.rates.apps.insert(busy, rate("3/h").unwrap());
    });
    let statuses = |host: &str| -> Vec<u16> {
        let callers = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
        let ask = |from| {
            Caller::connect_from(ip(from), ingress.address)
                .get(host, "/")
                .status()
        };
        callers.map(ask).into()
    };
    assert_eq!(statuses("blog.m3o.app"), [200, 200, 429, 429]);
    assert_eq!(statuses("busy.m3o.app"), [200, 200, 200, 429]);
    check_refused(&ingress.get("busy.m3o.app", "/"), "app", 3);
    let reply = ingress.get("other.m3o.app", "/").expect(200);
    assert_eq!(reply.field("RateLimit-Policy"), Some("\"app\";q=2;w=3600"));
    // What there is not has no rate.
    for _ in 0..3 {
        ingress.get("missing.m3o.app", "/").expect(404);
    }
    assert_eq!(shed(&ingress, "rate_app"), 4.0);
}

#[test]
fn of_several_rates_the_tightest_is_told() {
    let front = front(|config| {
        config.rates.peer = rate("5/h");
        config.rates.app = rate("3/h");
    });
    let told = |reply: &Reply| {
        reply
            .field("RateLimit")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(told(&front.ingress.get(BLOG, "/")), "\"app\"");
    for _ in 0..2 {
        front.ingress.get(BLOG, "/").expect(200);
    }
    check_refused(&front.ingress.get(BLOG, "/"), "app", 3);
    // Refused for the app, a request has counted for its client all the same.
    let reply = front.ingress.get("nowhere.example", "/").expect(404);
    assert!(
        reply
            .field("RateLimit")
            .unwrap()
            .starts_with("\"peer\";r=0;")
    );
    check_refused(&front.ingress.get("nowhere.example", "/"), "peer", 5);
}

#[test]
fn what_a_backend_says_of_its_own_rates_stays() {
    let fields = "RateLimit: \"theirs\";r=7\r\nRateLimit-Policy: \"theirs\";q=9\r\n";
    let front = Front::scripted_with(
        |config| config.rates.peer = rate("3/h"),
        move |answering| answering.write(response("200 OK", fields, "")),
    );
    let reply = front.ingress.get(BLOG, "/").expect(200);
    let limits = reply.head.all("RateLimit");
    assert_eq!(limits[0], "\"theirs\";r=7");
    assert!(limits[1].starts_with("\"peer\";r=2;"), "{limits:?}");
    let policies = reply.head.all("RateLimit-Policy");
    assert_eq!(policies, ["\"theirs\";q=9", "\"peer\";q=3;w=3600"]);
}

/// An API that answers every call, and an ingress that counts its keys.
fn counting_keys(adjust: impl FnOnce(&mut Config)) -> (TestApi, TestIngress) {
    let api = TestApi::new();
    api.says("a/b", json_response("{}"));
    let ingress = TestIngress::before_with(&api, |config| {
        config.rates.key = rate("2/h");
        adjust(config);
    });
    (api, ingress)
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn a_key_counts_once_however_it_is_sent() {
    // Each is the key `k`.
    let ways = [
        ("/v1/a/b", "Authorization: Bearer k\r\n", ""),
        ("/api/a/b", "Authorization: bearer  k\r\n", ""),
        ("/api/a/b", "Authorization: Basic OTk6aw==\r\n", ""),
        // Of a user whose name is no text, and with bits that are left over.
        ("/api/a/b", "Authorization: Basic /zpr\r\n", ""),
        ("/api/a/b", "Authorization: Basic OTk6ax==\r\n", ""),
        ("/api/a/b?api_key=k", "", ""),
        ("/api/a/b", FORM, "api_key=k&x=y"),
    ];
    for (target, fields, body) in ways {
        let (api, ingress) = counting_keys(|_| {});
        let call = |target, fields, body: &str| {
            ingress
                .caller()
                .post("any.example", target, fields, body.as_bytes())
        };
        for (target, fields, body) in [ways[0], (target, fields, body)] {
            let reply = call(target, fields, body).expect(200);
            assert!(reply.field("RateLimit").unwrap().starts_with("\"key\";"));
        }
        for (target, fields, body) in ways {
            check_refused(&call(target, fields, body), "key", 2);
        }
        let other = call("/v1/a/b", "Authorization: Bearer other\r\n", "");
        other.expect(200);
        assert_eq!(api.calls("a/b").len(), 3);
        assert_eq!(shed(&ingress, "rate_key"), 7.0);
    }
}

#[test]
fn credentials_that_nobody_can_count_are_malformed_where_keys_are() {
    let broken = "Authorization: Basic OTk6a*==\r\n";
    let call = |ingress: &TestIngress| {
        ingress
            .caller()
            .ask("GET", "/v1/a/b", "any.example", broken)
    };
    let (api, ingress) = counting_keys(|_| {});
    check_error(&call(&ingress), &[400], "the credentials are no base64");
    assert!(api.calls("a/b").is_empty());
    // Elsewhere the API is the one to judge.
    let (api, ingress) = counting_keys(|config| {
        config.rates.key = None;
    });
    call(&ingress).expect(200);
    assert_eq!(api.calls("a/b").len(), 1);
}

#[test]
fn a_page_may_read_that_it_asked_too_often() {
    let (_api, ingress) = counting_keys(|config| config.rates.peer = rate("3/h"));
    let fields = "Authorization: Bearer k\r\nOrigin: https://page.example\r\n";
    let call = || {
        ingress
            .caller()
            .ask("GET", "/api/a/b", "any.example", fields)
    };
    for _ in 0..2 {
        call().expect(200);
    }
    for policy in ["key", "peer"] {
        let reply = call().expect(429);
        assert!(
            reply.field("RateLimit").unwrap().contains(policy),
            "{policy}"
        );
        let origin = reply.field("Access-Control-Allow-Origin");
        assert_eq!(origin, Some("https://page.example"));
        let exposed = reply.field("Access-Control-Expose-Headers").unwrap();
        assert!(exposed.contains("RateLimit, RateLimit-Policy"), "{exposed}");
    }
}

#[test]
fn keys_that_are_made_up_take_no_room_and_set_none_free() {
    let (_api, ingress) = counting_keys(|config| config.rates.capacity = 16);
    let mut caller = ingress.caller();
    let mut call = |key: &str| {
        let fields = format!("Authorization: Bearer {key}\r\n");
        caller
            .ask("GET", "/v1/a/b", "any.example", &fields)
            .status()
    };
    for expected in [200, 200, 429] {
        assert_eq!(call("heavy"), expected);
    }
    let passed = (0..200).filter(|number| call(&format!("made-up-{number}")) == 200);
    assert!(passed.count() <= 2 * 16);
    assert_eq!(call("heavy"), 429);
}

#[test]
fn nothing_of_a_key_is_logged_when_it_is_refused() {
    let (_api, ingress) = counting_keys(|_| {});
    let fields = "Authorization: Bearer canary-key\r\n";
    for _ in 0..4 {
        ingress
            .caller()
            .ask("GET", "/v1/a/b", "any.example", fields);
    }
    eventually("all are logged", || ingress.access_lines().len() == 4);
    assert!(!ingress.log().contains("canary"));
}
