//! Another configuration while it serves: who meets it when, and that nobody loses anything by it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::ingress::Refused;
use m3o_ingress::server::shutdown::Stage;

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::Frames;
use crate::harness::operator::Operator;
use crate::harness::secure::Authority;
use crate::harness::{Caller, Gate, TestApi, TestBackend, TestIngress, eventually};

mod held;
mod listeners;
mod parts;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The keys that a reload says have changed.
#[track_caller]
fn changed(ingress: &TestIngress, adjust: impl FnOnce(&mut Config)) -> Vec<String> {
    let report = ingress.reload(adjust).unwrap();
    assert!(report.restart.is_empty(), "{report:?}");
    report
        .changed
        .into_iter()
        .map(|change| change.key)
        .collect()
}

fn another_host(config: &mut Config) {
    config.hosts.app.push("apps.example".parse().unwrap());
}

const SUCCESSFUL: &str = "m3o_ingress_config_last_reload_successful";

#[test]
fn the_very_next_request_meets_another_configuration() {
    let front = Front::new();
    let mut kept = front.ingress.caller();
    let mut frames = Frames::connect(front.ingress.address);
    kept.get("blog.apps.example", "/").expect(404);
    frames.get(1, "blog.apps.example", "/");
    assert_eq!(frames.status(1), 404);
    assert_eq!(changed(&front.ingress, another_host), ["hosts.app"]);
    assert_eq!(
        kept.get("blog.apps.example", "/").expect(200).text(),
        "attacked"
    );
    frames.get(3, "blog.apps.example", "/");
    assert_eq!(frames.status(3), 200);
    front.ingress.get("blog.apps.example", "/").expect(200);
    front.ingress.get(BLOG, "/").expect(200);
}

#[test]
fn limits_and_timeouts_of_a_kept_connection_change_with_its_next_request() {
    let front = Front::new();
    let mut callers: Vec<Caller> = (0..4).map(|_| front.ingress.caller()).collect();
    let mut frames = Frames::connect(front.ingress.address);
    for caller in &mut callers {
        caller.get(BLOG, "/").expect(200);
    }
    let keys = changed(&front.ingress, |config| {
        config.limits.uri = 64;
        config.limits.header = 1024;
        config.limits.headers = 3;
        config.timeouts.header = Duration::from_millis(100);
    });
    let all = [
        "limits.header",
        "limits.headers",
        "limits.uri",
        "timeouts.header",
    ];
    assert_eq!(keys, all);
    let [target, head, fields, slow] = &mut callers[..] else {
        panic!("there are four");
    };
    let long = "x".repeat(80);
    target.get(BLOG, &format!("/{long}")).expect(414);
    let large = format!("X: {}\r\n", "x".repeat(1024));
    head.ask("GET", "/", BLOG, &large).expect(431);
    fields
        .ask("GET", "/", BLOG, "A: 1\r\nB: 2\r\nC: 3\r\n")
        .expect(431);
    slow.send("GET / HTTP/1.1\r\nHost:");
    slow.reply().expect(408);
    frames.get(1, BLOG, &format!("/{long}"));
    assert_eq!(frames.status(1), 414);
}

#[test]
fn a_head_that_has_begun_is_held_to_what_held_when_it_began() {
    let front = Front::new();
    let mut caller = front.ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nX: "));
    eventually("it is read", || {
        front.ingress.metric("m3o_ingress_connections") == 1.0
    });
    front.ingress.get(BLOG, "/").expect(200);
    front
        .ingress
        .reload(|config| config.limits.header = 1024)
        .unwrap();
    caller.send(format!("{}\r\n\r\n", "x".repeat(2000)));
    caller.reply().expect(200);
    let large = format!("X: {}\r\n", "x".repeat(2000));
    caller.ask("GET", "/", BLOG, &large).expect(431);
}

#[test]
fn what_cannot_be_taken_over_changes_nothing_and_says_every_reason() {
    let authority = Authority::new();
    let front = Front::new();
    assert_eq!(front.ingress.metric(SUCCESSFUL), 1.0);
    let taken = TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    assert!(!front.ingress.read_again().unwrap().is_change());
    let refused = front.ingress.reload(|config| {
        another_host(config);
        config.listen.http.push(address);
        config.listen.http.push(loopback());
        config.listen.https.push(loopback());
        config.tls.certs = authority.folder().join("nowhere");
    });
    let Err(Refused::Problems(problems)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("there is no certificate to serve"),
        "{problems:?}"
    );
    let taken_by_another = format!("listen.http: cannot listen on {address}: the port is taken");
    assert!(problems[1].starts_with(&taken_by_another), "{problems:?}");
    front.ingress.get("blog.apps.example", "/").expect(404);
    front.serves_others();
    assert_eq!(front.ingress.metric(SUCCESSFUL), 0.0);
    let again = front.ingress.reload(|config| {
        config.hosts.app.pop();
        config.listen.http.truncate(1);
        config.listen.https.clear();
        config.tls = Config::default().tls;
    });
    assert!(!again.unwrap().is_change(), "it is as it was");
    assert_eq!(front.ingress.metric(SUCCESSFUL), 1.0);
    let count = |result: &str| {
        let series = format!("m3o_ingress_config_reloads_total{{result=\"{result}\"}}");
        front.ingress.metric(&series)
    };
    assert_eq!(
        [count("refused"), count("unchanged"), count("applied")],
        [1.0, 2.0, 0.0]
    );
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken_over() {
    let front = Front::new();
    let adjust = |config: &mut Config| {
        config.listen.workers = 7;
        config.cache.capacity = 1000;
        another_host(config);
    };
    let report = front.ingress.reload(adjust).unwrap();
    let keys: Vec<&str> = report.restart.iter().map(|change| &*change.key).collect();
    assert_eq!(keys, ["cache.capacity", "listen.workers"]);
    assert_eq!(report.restart[1].to_string(), "listen.workers: 1 -> 7");
    assert_eq!(report.changed.len(), 1);
    front.ingress.get("blog.apps.example", "/").expect(200);
    let again = front.ingress.read_again().unwrap();
    assert!(!again.is_change(), "{again:?}");
    assert_eq!(again.restart, report.restart, "it still waits");
}

#[test]
fn a_reload_says_what_it_was_and_is_and_how_many_stayed() {
    let front = Front::new();
    let _kept = {
        let mut caller = front.ingress.caller();
        caller.get(BLOG, "/").expect(200);
        caller
    };
    let report = front
        .ingress
        .reload(|config| config.limits.body = 1 << 20)
        .unwrap();
    assert_eq!(
        report.changed[0].to_string(),
        "limits.body: \"1GiB\" -> \"1MiB\""
    );
    assert_eq!((report.connections, report.tunnels), (1, 0));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["changed"][0]["new"], "\"1MiB\"");
    let again = front.ingress.read_again().unwrap();
    assert!(!again.is_change() && again.restart.is_empty(), "{again:?}");
}

#[test]
fn whoever_asks_while_it_ends_hears_so() {
    let gate = Gate::default();
    let held = gate.clone();
    let mut front = Front::scripted(move |answering| {
        answering.body();
        held.wait();
        answering.write(ok("late"));
    });
    let mut caller = front.ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is in flight", || front.backend.seen().len() == 1);
    front.ingress.advance(Stage::Draining);
    eventually("no new connections", || {
        TcpStream::connect(front.ingress.address).is_err()
    });
    eventually("no reload", || {
        front.ingress.read_again() == Err(Refused::Ended)
    });
    gate.open();
    caller.reply().expect(200);
    front.ingress.join().unwrap();
}

#[test]
fn the_operator_reloads_by_the_control_socket_and_sees_what_is_there_since() {
    let operator = Operator::new();
    let api = TestApi::new();
    let ingress = TestIngress::before_with(&api, |config| operator.runs(config));
    let status = || operator.get("/status").1;
    assert_eq!(status()["http"].as_array().unwrap().len(), 1);
    let unchanged = operator.does("/reload", "");
    assert_eq!(unchanged["changed"], serde_json::json!([]));
    let report = ingress
        .reload(|config| config.listen.http.push(loopback()))
        .unwrap();
    assert_eq!(status()["http"][1], report.opened[0].to_string());
    let taken = TcpListener::bind(loopback()).unwrap();
    let address = taken.local_addr().unwrap();
    let refused = ingress.reload(|config| config.listen.http.push(address));
    assert!(refused.is_err());
    let (code, answer) = operator.post("/reload", "");
    assert_eq!(code, 422);
    assert!(
        answer["detail"]
            .as_str()
            .unwrap()
            .contains(&address.to_string())
    );
}

#[test]
fn the_log_of_requests_comes_and_goes() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    for (path, access) in [("/one", false), ("/two", true), ("/three", true)] {
        caller.get(BLOG, path).expect(200);
        ingress.reload(|config| config.log.access = access).unwrap();
    }
    caller.get(BLOG, "/four").expect(200);
    eventually("the last line is there", || ingress.log().contains("/four"));
    let log = ingress.log();
    assert!(
        log.contains("/one") && !log.contains("/two") && log.contains("/three"),
        "{log}"
    );
}
