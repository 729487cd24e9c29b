//! Addresses that come, go, move, and become something else.

use m3o_ingress::proxy::https::Rule;

use super::*;
use crate::harness::http2::{ask, get, run};

const PROMISE: &str = "Strict-Transport-Security";

/// An address that nobody has at the moment.
fn free() -> SocketAddr {
    TcpListener::bind(loopback()).unwrap().local_addr().unwrap()
}

#[test]
fn an_address_that_comes_is_served_and_is_no_backend() {
    let front = Front::new();
    let report = front
        .ingress
        .reload(|config| config.listen.http.push(loopback()))
        .unwrap();
    let [new] = report.opened[..] else {
        panic!("{report:?}");
    };
    Caller::connect(new).get(BLOG, "/").expect(200);
    let api = TestApi::with_app("loop", &format!("http://{new}"));
    let report = front.ingress.reload_with(|config, _| {
        let address = format!("http://{}", api.address());
        config.api.as_mut().unwrap().address = address.try_into().unwrap();
    });
    report.unwrap();
    Caller::connect(new).get("loop.m3o.app", "/").expect(502);
}

#[test]
fn an_address_that_goes_may_be_taken_by_another_and_come_back() {
    let front = Front::new();
    let address = free();
    front
        .ingress
        .reload(|config| config.listen.http.push(address))
        .unwrap();
    let mut kept = Caller::connect(address);
    kept.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| config.listen.http.truncate(1))
        .unwrap();
    let other = TcpListener::bind(address).unwrap();
    let refused = front
        .ingress
        .reload(|config| config.listen.http.push(address));
    assert!(refused.is_err(), "{refused:?}");
    drop(other);
    let report = front.ingress.read_again().unwrap();
    assert_eq!(report.opened, [address]);
    Caller::connect(address).get(BLOG, "/").expect(200);
}

#[test]
fn the_admin_address_moves() {
    let front = Front::new();
    let before = front.ingress.admin;
    let address = free();
    let report = front
        .ingress
        .reload(|config| config.listen.admin = Some(address))
        .unwrap();
    assert_eq!(
        (report.opened, report.closed),
        (vec![address], vec![before])
    );
    let ready = Caller::connect(address)
        .get("localhost", "/readyz")
        .expect(200);
    assert_eq!(ready.text(), "ok\n");
    assert!(TcpStream::connect(before).is_err());
    let report = front
        .ingress
        .reload(|config| config.listen.admin = None)
        .unwrap();
    assert_eq!(report.closed, [address]);
    assert!(TcpStream::connect(address).is_err());
    front.ingress.get(BLOG, "/").expect(200);
}

#[test]
fn an_address_that_begins_to_speak_tls_keeps_its_sockets() {
    let authority = Authority::new();
    authority.put("blog", &["*.m3o.app"]);
    let front = Front::new();
    let address = free();
    let folder = authority.folder().to_owned();
    front
        .ingress
        .reload(|config| config.listen.http.push(address))
        .unwrap();
    let mut plain = Caller::connect(address);
    plain.get(BLOG, "/").expect(200);
    let report = front
        .ingress
        .reload(|config| {
            config.listen.http.truncate(1);
            config.listen.https.push(address);
            config.tls.certs = folder;
        })
        .unwrap();
    assert!(
        report.opened.is_empty() && report.closed.is_empty(),
        "{report:?}"
    );
    plain.get(BLOG, "/").expect(200);
    Caller::connect(address).get(BLOG, "/").expect(400);
    let clients = authority.clients();
    let mut secure = clients.connect(address, BLOG).unwrap();
    secure.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| {
            config.listen.http.push(config.listen.https.pop().unwrap());
        })
        .unwrap();
    secure.get(BLOG, "/").expect(200);
    Caller::connect(address).get(BLOG, "/").expect(200);
}

#[test]
fn other_certificates_serve_the_next_handshake_and_connections_live_on() {
    let (first, second) = (Authority::new(), Authority::new());
    first.put("blog", &["*.m3o.app"]);
    second.put("blog", &["*.m3o.app"]);
    let default = second.put("other", &["other.example"]);
    let front = Front::scripted_with(
        |config| {
            config.listen.https = vec![loopback()];
            config.tls.certs = first.folder().to_owned();
        },
        |answering| {
            answering.body();
            answering.write(ok("hello"));
        },
    );
    let address = front.ingress.secure();
    let mut before = first.clients().connect(address, BLOG).unwrap();
    before.get(BLOG, "/").expect(200);
    let folder = second.folder().to_owned();
    let keys = changed(&front.ingress, |config| {
        config.tls.certs = folder;
        config.tls.default = "other".to_owned();
    });
    assert_eq!(keys, ["tls.certs", "tls.default"]);
    before.get(BLOG, "/").expect(200);
    let mut after = second.clients().connect(address, BLOG).unwrap();
    after.get(BLOG, "/").expect(200);
    let unknown = second.clients().connect(address, "other.example").unwrap();
    assert_eq!(unknown.shown(), default);
    // A folder with a broken file of what is served is not taken.
    let third = Authority::new();
    third.put("blog", &["*.m3o.app"]);
    third.put("other", &["other.example"]);
    std::fs::write(third.folder().join("blog.key"), "no key").unwrap();
    let folder = third.folder().to_owned();
    let problems = front
        .ingress
        .reload(|config| config.tls.certs = folder)
        .unwrap_err()
        .to_string();
    assert!(
        problems.contains("tls.certs: ") && problems.contains("; blog: "),
        "{problems}"
    );
    let still = second.clients().connect(address, BLOG);
    still.unwrap().get(BLOG, "/").expect(200);
    let refused = front
        .ingress
        .reload(|config| config.tls.default = "nobody".to_owned());
    assert!(
        format!("{refused:?}").contains("tls.default"),
        "{refused:?}"
    );
    second.clients().connect(address, BLOG).unwrap();
    front.ingress.reload(another_host).unwrap_err();
    run(async {
        let client = second.http2(address, BLOG).await;
        assert_eq!(ask(&client, get(BLOG, "/")).await.status(), 200);
    });
}

#[test]
fn a_rule_of_a_listener_is_that_of_its_connections_wherever_it_stands() {
    let authority = Authority::new();
    authority.put("blog", &["*.m3o.app"]);
    let address = free();
    let front = Front::scripted_with(
        |config| {
            config.listen.https = vec![loopback(), address];
            config.tls.certs = authority.folder().to_owned();
            let rule = Rule {
                hsts: Some(Duration::from_secs(60)),
                ..Rule::default()
            };
            config.https.listeners.insert(address, rule);
        },
        |answering| {
            answering.body();
            answering.write(ok("hello"));
        },
    );
    let clients = authority.clients();
    let mut with = clients.connect(address, BLOG).unwrap();
    let mut without = clients.connect(front.ingress.secure(), BLOG).unwrap();
    let promised = Some("max-age=60");
    let mut check = || {
        assert_eq!(with.get(BLOG, "/").field(PROMISE), promised);
        assert_eq!(without.get(BLOG, "/").field(PROMISE), None);
        let mut fresh = clients.connect(address, BLOG).unwrap();
        assert_eq!(fresh.get(BLOG, "/").field(PROMISE), promised);
    };
    check();
    front
        .ingress
        .reload(|config| {
            config.listen.http.push(loopback());
            config.listen.https = vec![loopback(), address, loopback()];
            config.listen.https.swap(0, 1);
        })
        .unwrap();
    check();
}

#[test]
fn headers_of_a_load_balancer_are_asked_of_the_next_connection() {
    let front = Front::new();
    let address = front.ingress.address;
    let mut kept = front.ingress.caller();
    kept.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| {
            config.listen.proxy_protocol = config.listen.http.clone();
            config.backends.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .unwrap();
    kept.get(BLOG, "/").expect(200);
    let mut announced = Caller::connect(address);
    announced.send("PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n");
    announced.get(BLOG, "/").expect(200);
    assert_eq!(
        front.backend.last().field("X-Forwarded-For"),
        Some("192.0.2.7")
    );
}
