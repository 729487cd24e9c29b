//! Custom domains: nobody's until they are proven, then every path of them is their app's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use m3o_ingress::config::Config;
use m3o_ingress::proxy::https::Rule;
use serde_json::{Value, json};

use crate::harness::backend::{ok, response};
use crate::harness::{Caller, Gate, TestApi, TestBackend, TestIngress, TestNames, eventually};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn ingress(names: &TestNames, adjust: impl FnOnce(&mut Config)) -> TestIngress {
    TestIngress::embedded_with(|config| {
        config.backends.dns = vec![names.address.into()];
        adjust(config);
    })
}

/// Links, and so proofs over HTTP, name this port.
fn public_port(config: &mut Config, port: u16) {
    let public = &mut config.platform.as_mut().unwrap().public;
    public.secure = false;
    public.port = Some(port);
}

/// What is asked of the domains of an app.
#[track_caller]
fn claim(ingress: &TestIngress, app: &str, domains: &[&str]) -> Vec<Value> {
    let json = json!({ "name": app, "custom_domains": domains }).to_string();
    let answer = ingress.post_json("app/Update", &json).expect(200).text();
    proofs(&answer)
}

fn proofs(answer: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let proofs = answer["service"]["domain_proofs"].as_array();
    proofs.unwrap().clone()
}

/// Whether the first domain of an app is verified. To look is to hurry.
fn is_verified(ingress: &TestIngress, app: &str) -> bool {
    let json = json!({ "name": app }).to_string();
    let answer = ingress.post_json("app/Get", &json).expect(200).text();
    proofs(&answer)[0]["verified"] == true
}

fn publish(names: &TestNames, proof: &Value) {
    let text = |field: &str| proof[field].as_str().unwrap();
    names.add_text(text("txt_name"), text("txt_value"));
}

#[track_caller]
fn said(ingress: &TestIngress, host: &str, target: &str) -> Result<String, u16> {
    let reply = ingress.get(host, target);
    match reply.status() {
        200 => Ok(reply.text()),
        status => Err(status),
    }
}

#[test]
fn a_domain_that_a_record_proves_leads_to_its_app_with_every_path() {
    let names = TestNames::new();
    let backend = TestBackend::answering(ok("blog"));
    let ingress = ingress(&names, |config| config.listen.workers = 2);
    ingress.run_app("blog", &backend.url());
    let asked = claim(&ingress, "blog", &["bücher.example"]);
    let domain = "xn--bcher-kva.example";
    assert_eq!(asked[0]["domain"], domain);
    let paths = [
        "/",
        "/a/b?c=d",
        "/api/helloworld/call",
        "/u/abc",
        "/user/abc",
    ];
    assert_eq!(said(&ingress, domain, "/"), Err(404));
    assert_eq!(
        said(&ingress, domain, "/api/helloworld/call"),
        Err(401),
        "any other host"
    );

    // Of another claim, and the right one under another name.
    names.add_text(
        "_m3o-challenge.xn--bcher-kva.example",
        "m3o-domain-verification=wrong",
    );
    names.add_text(domain, asked[0]["txt_value"].as_str().unwrap());
    let before = names.asked("_m3o-challenge.xn--bcher-kva.example");
    eventually("the record is looked for twice more", || {
        assert!(!is_verified(&ingress, "blog"));
        names.asked("_m3o-challenge.xn--bcher-kva.example") > before + 1
    });
    assert_eq!(said(&ingress, domain, "/"), Err(404));

    publish(&names, &asked[0]);
    eventually("the domain is verified", || is_verified(&ingress, "blog"));
    // Every worker knows at once.
    let mut callers: Vec<Caller> = (0..8).map(|_| ingress.caller()).collect();
    for caller in &mut callers {
        for path in paths {
            assert_eq!(
                caller
                    .get("XN--bcher-kva.Example.", path)
                    .expect(200)
                    .text(),
                "blog"
            );
        }
    }
    assert_eq!(backend.last().head.first, "GET /user/abc HTTP/1.1");
    assert_eq!(said(&ingress, "www.xn--bcher-kva.example", "/"), Err(404));
    assert_eq!(said(&ingress, "blog.m3o.app", "/"), Ok("blog".to_owned()));

    claim(&ingress, "blog", &[]);
    for caller in &mut callers {
        assert_eq!(
            caller.get(domain, "/").status(),
            404,
            "the very next request"
        );
    }
}

#[test]
fn a_location_on_the_backend_becomes_one_on_the_custom_domain() {
    let names = TestNames::new();
    let place = Arc::<Mutex<String>>::default();
    let script = Arc::clone(&place);
    let backend = TestBackend::scripted(move |answering| {
        let fields = format!("Location: {}/next\r\n", script.lock().unwrap());
        answering.write(response("302 Found", &fields, ""));
    });
    *place.lock().unwrap() = backend.url();
    let ingress = ingress(&names, |_| {});
    ingress.run_app("blog", &backend.url());
    publish(&names, &claim(&ingress, "blog", &["shop.example"])[0]);
    eventually("the domain is verified", || is_verified(&ingress, "blog"));
    let reply = ingress.get("shop.example", "/");
    assert_eq!(reply.field("Location"), Some("http://shop.example/next"));
    let seen = backend.last();
    assert_eq!(seen.head.field("X-Forwarded-Host"), Some("shop.example"));
}

#[test]
fn a_page_of_the_owners_own_server_proves_a_domain_and_a_redirect_does_not() {
    let names = TestNames::new();
    names.add_address("shop.example", LOOPBACK);
    let pages = Arc::<Mutex<BTreeSet<String>>>::default();
    let published = Arc::clone(&pages);
    let server = TestBackend::scripted(move |answering| {
        let target = answering.target();
        let token = target.rsplit('/').next().unwrap().to_owned();
        if answering
            .head
            .field("Host")
            .unwrap()
            .starts_with("shop.example:")
            && published.lock().unwrap().contains(&target)
        {
            answering.write(ok(&format!("{token}\n")));
        } else if target == "/elsewhere" {
            answering.write(ok(&token));
        } else {
            answering.write(response("302 Found", "Location: /elsewhere\r\n", &token));
        }
    });
    let backend = TestBackend::answering(ok("blog"));
    let ingress = ingress(&names, |config| public_port(config, server.address.port()));
    ingress.run_app("blog", &backend.url());
    let asked = claim(&ingress, "blog", &["shop.example"]);
    eventually("the page is asked for twice", || {
        assert!(!is_verified(&ingress, "blog"));
        server.seen().len() > 1
    });
    let url = asked[0]["http_url"].as_str().unwrap();
    let origin = format!("http://shop.example:{}", server.address.port());
    let path = url.strip_prefix(&origin).unwrap();
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.head.first == format!("GET {path} HTTP/1.1"))
    );
    assert_eq!(said(&ingress, "shop.example", "/"), Err(404));

    pages.lock().unwrap().insert(path.to_owned());
    eventually("the domain is verified", || is_verified(&ingress, "blog"));
    assert_eq!(said(&ingress, "shop.example", "/"), Ok("blog".to_owned()));
}

#[test]
fn a_private_address_is_asked_for_no_proof_unless_backends_may_live_there() {
    let names = TestNames::new();
    names.add_address("shop.example", LOOPBACK);
    let server = TestBackend::answering(ok("unused"));
    let ingress = ingress(&names, |config| {
        config.backends.allow_private = false;
        public_port(config, server.address.port());
    });
    ingress.run_app("blog", "http://backend.example");
    claim(&ingress, "blog", &["shop.example"]);
    let before = names.asked("_m3o-challenge.shop.example");
    eventually("the proof is looked for twice more", || {
        assert!(!is_verified(&ingress, "blog"));
        names.asked("_m3o-challenge.shop.example") > before + 1
    });
    assert!(names.asked("shop.example") > 0);
    assert_eq!(server.opened(), 0);
}

#[test]
fn a_domain_that_leads_here_proves_itself_unless_two_apps_claim_it() {
    let names = TestNames::new();
    let backend = TestBackend::answering(ok("blog"));
    let ingress = ingress(&names, |config| {
        // Takes the port that is really bound for that of links.
        config.dev = true;
        public_port(config, 80);
    });
    ingress.run_app("blog", &backend.url());
    ingress.run_app("other", &backend.url());
    let asked = claim(&ingress, "blog", &["shop.example", "both.example"]);
    claim(&ingress, "other", &["both.example"]);
    let url = asked[0]["http_url"].as_str().unwrap();
    let origin = format!("http://shop.example:{}", ingress.address.port());
    let path = url.strip_prefix(&origin).unwrap();
    let body = asked[0]["http_body"].as_str().unwrap();
    assert_eq!(said(&ingress, "shop.example", path).as_deref(), Ok(body));
    assert_eq!(said(&ingress, "localhost", path), Err(404));
    assert_eq!(
        said(&ingress, "shop.example", &format!("{path}x")),
        Err(404)
    );
    assert_eq!(
        said(
            &ingress,
            "both.example",
            asked[1]["http_url"].as_str().unwrap()
        ),
        Err(404)
    );

    names.add_address("both.example", LOOPBACK);
    names.add_address("shop.example", LOOPBACK);
    eventually("the domain is verified", || is_verified(&ingress, "blog"));
    assert_eq!(said(&ingress, "shop.example", "/"), Ok("blog".to_owned()));
    let before = names.asked("_m3o-challenge.both.example");
    eventually("the other is looked for twice more", || {
        assert!(!is_verified(&ingress, "other"));
        names.asked("_m3o-challenge.both.example") > before + 1
    });
    assert_eq!(said(&ingress, "both.example", "/"), Err(404));
}

#[test]
fn a_domain_that_leads_here_proves_itself_also_where_all_others_are_sent_to_https() {
    let names = TestNames::new();
    names.add_address("shop.example", LOOPBACK);
    let backend = TestBackend::answering(ok("blog"));
    let ingress = ingress(&names, |config| {
        config.dev = true;
        public_port(config, 80);
        config.https.redirect = true;
        // The API is called over plain HTTP here.
        let rule = Rule {
            redirect: Some(false),
            ..Rule::default()
        };
        config
            .https
            .domains
            .insert("localhost".parse().unwrap(), rule);
    });
    ingress.run_app("blog", &backend.url());
    claim(&ingress, "blog", &["shop.example"]);
    eventually("the domain is verified", || is_verified(&ingress, "blog"));
    assert_eq!(said(&ingress, "shop.example", "/"), Err(308));
}

#[test]
fn of_two_apps_the_one_that_proves_a_domain_has_it_until_it_is_deleted() {
    let names = TestNames::new();
    let (one, two) = (
        TestBackend::answering(ok("one")),
        TestBackend::answering(ok("two")),
    );
    let ingress = ingress(&names, |_| {});
    ingress.run_app("one", &one.url());
    ingress.run_app("two", &two.url());
    let ones = claim(&ingress, "one", &["shop.example"]);
    let twos = claim(&ingress, "two", &["shop.example"]);
    publish(&names, &twos[0]);
    eventually("the second is verified", || is_verified(&ingress, "two"));
    assert_eq!(said(&ingress, "shop.example", "/"), Ok("two".to_owned()));
    let again = json!({ "name": "one", "custom_domains": "shop.example" }).to_string();
    assert_eq!(ingress.post_json("app/Update", &again).status(), 409);
    publish(&names, &ones[0]);
    assert!(!is_verified(&ingress, "one"));

    ingress
        .post_json("app/Delete", r#"{"name":"two"}"#)
        .expect(200);
    assert_ne!(said(&ingress, "shop.example", "/"), Ok("two".to_owned()));
    eventually("the first is verified", || is_verified(&ingress, "one"));
    assert_eq!(said(&ingress, "shop.example", "/"), Ok("one".to_owned()));
}

#[test]
fn domains_and_their_proofs_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let names = TestNames::new();
    let backend = TestBackend::answering(ok("blog"));
    let start = || {
        ingress(&names, |config| {
            config.platform.as_mut().unwrap().store = store.clone();
        })
    };
    let first = start();
    first.run_app("blog", &backend.url());
    first.run_app("late", &backend.url());
    publish(&names, &claim(&first, "blog", &["shop.example"])[0]);
    let late = claim(&first, "late", &["late.example"]);
    eventually("the domain is verified", || is_verified(&first, "blog"));
    drop(first);

    let second = start();
    assert_eq!(said(&second, "shop.example", "/"), Ok("blog".to_owned()));
    assert!(is_verified(&second, "blog"));
    assert_eq!(said(&second, "late.example", "/"), Err(404));
    publish(&names, &late[0]);
    eventually("the other is verified", || is_verified(&second, "late"));
    assert_eq!(said(&second, "late.example", "/"), Ok("blog".to_owned()));
    drop(second);

    // What was proven stays, whatever became of its record.
    let third = ingress(&TestNames::new(), |config| {
        config.platform.as_mut().unwrap().store = store.clone();
    });
    assert_eq!(said(&third, "late.example", "/"), Ok("blog".to_owned()));
}

#[test]
fn in_front_of_a_remote_api_there_are_no_custom_domains() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    let path = "/.well-known/m3o-domain-verification/abc";
    for target in ["/", path] {
        assert_eq!(said(&ingress, "shop.example", target), Err(404));
    }
}

#[test]
fn a_slow_name_server_holds_no_request_up() {
    // It takes questions and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let backend = TestBackend::answering(ok("blog"));
    let asked = Gate::default();
    let (heard, socket) = (asked.clone(), silent.try_clone().unwrap());
    let listening = std::thread::spawn(move || {
        socket.recv_from(&mut [0; 512]).unwrap();
        heard.open();
    });
    let ingress = TestIngress::embedded_with(|config| {
        config.backends.dns = vec![silent.local_addr().unwrap().into()];
        config.timeouts.connect = std::time::Duration::from_secs(2);
    });
    ingress.run_app("blog", &backend.url());
    claim(&ingress, "blog", &["a.example", "b.example"]);
    asked.wait();
    listening.join().unwrap();
    for _ in 0..20 {
        assert_eq!(said(&ingress, "blog.m3o.app", "/"), Ok("blog".to_owned()));
        claim(&ingress, "blog", &["a.example"]);
    }
}
