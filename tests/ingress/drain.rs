//! The end: what is in flight finishes, nothing new begins, and it is over in time.

use std::net::TcpStream;
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::server::shutdown::Stage;

use crate::harness::backend::ok;
use crate::harness::{Answering, Caller, Gate, TestApi, TestBackend, TestIngress, eventually};

const BLOG: &str = "blog.m3o.app";

const LONG: Duration = Duration::from_secs(60);

struct Blog {
    gate: Gate,
    backend: TestBackend,
    _api: TestApi,
    ingress: TestIngress,
}

/// An app that answers at `/slow` when its gate opens, and at once everywhere else.
fn blog(adjust: impl FnOnce(&mut Config)) -> Blog {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = TestBackend::scripted(move |answering| {
        answering.body();
        if answering.target() == "/slow" {
            held.wait();
        }
        answering.write(ok("hello"));
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, adjust);
    Blog {
        gate,
        backend,
        _api: api,
        ingress,
    }
}

impl Blog {
    /// A request that is at the backend, which does not answer it yet.
    fn in_flight(&self) -> Caller {
        let before = self.backend.seen().len();
        let mut caller = self.ingress.caller();
        caller.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        eventually("the backend is asked", || {
            self.backend.seen().len() > before
        });
        caller
    }

    fn refuses_connections(&self) -> bool {
        TcpStream::connect(self.ingress.address).is_err()
    }
}

#[test]
fn what_is_in_flight_is_answered_and_then_it_ends() {
    let mut blog = blog(|_| {});
    let mut callers = [blog.in_flight(), blog.in_flight(), blog.in_flight()];
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    assert!(!blog.ingress.has_ended());
    blog.gate.open();
    for caller in &mut callers {
        let reply = caller.reply().expect(200);
        assert_eq!(reply.text(), "hello");
        assert_eq!(caller.rest(), b"", "it is closed then");
    }
    blog.ingress.join().unwrap();
}

#[test]
fn an_idle_ingress_ends_at_once() {
    let mut blog = blog(|config| config.timeouts.drain = LONG);
    blog.ingress.get(BLOG, "/").expect(200);
    blog.ingress.advance(Stage::Draining);
    eventually("it has ended", || blog.ingress.has_ended());
    blog.ingress.join().unwrap();
}

#[test]
fn idle_connections_are_closed() {
    let mut blog = blog(|config| config.timeouts.drain = LONG);
    let mut fresh = blog.ingress.caller();
    let mut used = blog.ingress.caller();
    used.get(BLOG, "/").expect(200);
    eventually("both are accepted", || {
        blog.ingress.metric("m3o_ingress_connections") == 2.0
    });
    blog.ingress.advance(Stage::Draining);
    assert_eq!(fresh.rest(), b"");
    assert_eq!(used.rest(), b"");
    eventually("it has ended", || blog.ingress.has_ended());
    blog.ingress.join().unwrap();
}

#[test]
fn a_request_whose_head_is_under_way_is_answered() {
    let blog = blog(|_| {});
    let holding = blog.in_flight();
    let mut caller = blog.ingress.caller();
    caller.send("GET / HTTP/1.1\r\nHost: ");
    eventually("it is accepted", || {
        blog.ingress.metric("m3o_ingress_connections") == 2.0
    });
    // A request on the same thread comes after what was already there to be read.
    blog.ingress.get(BLOG, "/").expect(200);
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    caller.send(format!("{BLOG}\r\n\r\n"));
    caller.reply().expect(200);
    assert_eq!(caller.rest(), b"");
    blog.gate.open();
    drop(holding);
}

#[test]
fn an_upload_that_is_under_way_is_taken_to_its_end() {
    let blog = blog(|_| {});
    let mut caller = blog.ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 10\r\n\r\nhalf "
    ));
    eventually("the backend is asked", || blog.backend.seen().len() == 1);
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    caller.send("again");
    caller.reply().expect(200);
    assert_eq!(blog.backend.only().text(), "half again");
}

#[test]
fn what_takes_longer_than_the_drain_is_cut() {
    let mut blog = blog(|config| config.timeouts.drain = Duration::from_millis(200));
    let mut caller = blog.in_flight();
    blog.ingress.advance(Stage::Draining);
    assert_eq!(caller.rest(), b"");
    blog.ingress.join().unwrap();
    blog.gate.open();
    check_cut_by_us(&blog);
}

/// The client did nothing wrong, so it is not the one that left.
#[track_caller]
fn check_cut_by_us(blog: &Blog) {
    eventually("it is logged", || blog.ingress.access_lines().len() == 1);
    let line = &blog.ingress.access_lines()[0];
    assert_eq!(line["http.response.status_code"], 503, "{line}");
    assert_eq!(line["outcome"], "cut", "{line}");
}

#[test]
fn a_websocket_that_does_not_answer_is_cut_at_the_limit() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        answering.wait_for_close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.drain = Duration::from_millis(200);
    });
    let mut caller = opened(&ingress);
    ingress.advance(Stage::Draining);
    assert_eq!(caller.rest(), GOING_AWAY);
    ingress.join().unwrap();
    eventually("the backend is let go", || backend.closed() == 1);
}

/// A backend that answers a handshake, sends `first`, waits for `gate`, sends `then`, and gives what came
/// from its client back when that closes.
fn websocket(first: &'static [u8], gate: &Gate, then: &'static [u8]) -> TestBackend {
    let gate = gate.clone();
    TestBackend::scripted(move |answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        answering.write(first);
        gate.wait();
        answering.write(then);
        let closing = answering.some();
        assert_eq!(closing, ANSWERED, "the client's frame");
        answering.write([0x88, 2, 3, 0xe9]);
        answering.close();
    })
}

/// What a client answers to status 1001, with a masking key of zeros.
const ANSWERED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9];

/// RFC 6455, 7.4.1: status 1001, "going away".
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];

#[test]
fn a_websocket_is_told_that_we_go_away_and_ends_in_order() {
    let gate = Gate::default();
    let backend = websocket(b"\x81\x05hello", &gate, b"");
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before_with(&api, |config| config.timeouts.drain = LONG);
    let mut caller = opened(&ingress);
    assert_eq!(caller.exactly(7), b"\x81\x05hello");
    ingress.advance(Stage::Draining);
    assert_eq!(caller.exactly(4), GOING_AWAY);
    gate.open();
    caller.send(ANSWERED);
    assert_eq!(
        caller.rest(),
        b"",
        "the backend's answer is not for the client"
    );
    ingress.join().unwrap();
    eventually("the backend is let go", || backend.closed() == 1);
}

#[test]
fn a_message_that_is_under_way_is_whole_before_a_websocket_is_told() {
    let gate = Gate::default();
    let backend = websocket(b"\x82\x06one", &gate, b"two\x81\x05three\x81\x04fo");
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before_with(&api, |config| config.timeouts.drain = LONG);
    let mut caller = opened(&ingress);
    assert_eq!(caller.exactly(5), b"\x82\x06one");
    ingress.advance(Stage::Draining);
    eventually("new connections are refused", || {
        TcpStream::connect(ingress.address).is_err()
    });
    gate.open();
    assert_eq!(caller.exactly(10), b"two\x81\x05three");
    assert_eq!(
        caller.exactly(4),
        GOING_AWAY,
        "what came behind is not sent"
    );
    caller.send(ANSWERED);
    assert_eq!(caller.rest(), b"");
    ingress.join().unwrap();
}

#[test]
fn a_websocket_that_its_backend_closes_hears_nothing_of_us() {
    // RFC 6455, 7.4.1: status 1000, "normal closure", and what a client answers to that.
    const NORMAL: [u8; 4] = [0x88, 2, 3, 0xe8];
    const LIKEWISE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];
    let backend = TestBackend::scripted(|answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        answering.write(NORMAL);
        assert_eq!(answering.some(), LIKEWISE, "the client's frame");
        answering.close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before_with(&api, |config| config.timeouts.drain = LONG);
    let mut caller = opened(&ingress);
    assert_eq!(caller.exactly(4), NORMAL);
    ingress.advance(Stage::Draining);
    eventually("new connections are refused", || {
        TcpStream::connect(ingress.address).is_err()
    });
    caller.send(LIKEWISE);
    assert_eq!(caller.rest(), b"", "the backend has said all");
    ingress.join().unwrap();
}

#[test]
fn a_tunnel_of_another_protocol_hears_nothing() {
    let backend = TestBackend::scripted(|answering| {
        answering.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        answering.wait_for_close();
    });
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before_with(&api, |config| {
        config.timeouts.drain = Duration::from_millis(200);
    });
    let mut caller = ingress.caller();
    let fields = "Connection: Upgrade\r\nUpgrade: echo\r\n";
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
    assert_eq!(caller.head().status(), 101);
    ingress.advance(Stage::Draining);
    assert_eq!(caller.rest(), b"");
    ingress.join().unwrap();
}

/// A WebSocket to the app.
fn opened(ingress: &TestIngress) -> Caller {
    let mut caller = ingress.caller();
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
    assert_eq!(caller.head().status(), 101);
    caller
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut blog = blog(|config| config.timeouts.drain = LONG);
    let mut caller = blog.in_flight();
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    assert!(!blog.ingress.has_ended());
    blog.ingress.advance(Stage::Stopping);
    assert_eq!(caller.rest(), b"");
    eventually("it has ended", || blog.ingress.has_ended());
    blog.ingress.join().unwrap();
    blog.gate.open();
    check_cut_by_us(&blog);
}

#[test]
fn before_the_drain_it_is_not_ready_but_still_accepts() {
    let blog = blog(|config| config.timeouts.drain_delay = LONG);
    let readiness = || {
        Caller::connect(blog.ingress.admin)
            .get("localhost", "/readyz")
            .status()
    };
    eventually("it is ready", || readiness() == 200);
    blog.ingress.advance(Stage::Draining);
    eventually("it is not ready", || readiness() == 503);
    blog.ingress.get(BLOG, "/").expect(200);
    let alive = Caller::connect(blog.ingress.admin).get("localhost", "/livez");
    alive.expect(200);
}

#[test]
fn metrics_can_be_read_while_it_drains() {
    let blog = blog(|config| config.timeouts.drain = LONG);
    let mut caller = blog.in_flight();
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    assert_eq!(blog.ingress.metric("http_server_active_requests"), 1.0);
    blog.gate.open();
    caller.reply().expect(200);
}

#[test]
fn what_was_logged_is_written_before_the_end() {
    let mut blog = blog(|_| {});
    for _ in 0..20 {
        blog.ingress.get(BLOG, "/").expect(200);
    }
    blog.ingress.advance(Stage::Draining);
    blog.ingress.join().unwrap();
    eventually("all lines are there", || {
        blog.ingress.access_lines().len() == 20
    });
}

#[test]
fn the_port_is_free_when_it_has_ended() {
    let mut blog = blog(|_| {});
    let address = blog.ingress.address;
    blog.ingress.advance(Stage::Draining);
    blog.ingress.join().unwrap();
    let socket = std::net::TcpListener::bind(address);
    assert!(socket.is_ok(), "{socket:?}");
}

#[test]
fn a_stream_under_way_reaches_its_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = TestBackend::scripted(move |answering: &mut Answering| {
        answering.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        held.wait();
        answering.write("1\r\nb\r\n0\r\n\r\n");
    });
    let api = TestApi::with_app("blog", &backend.url());
    let mut ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    caller.head();
    assert_eq!(caller.chunk().unwrap(), b"a");
    ingress.advance(Stage::Draining);
    eventually("new connections are refused", || {
        TcpStream::connect(ingress.address).is_err()
    });
    gate.open();
    assert_eq!(caller.chunk().unwrap(), b"b");
    assert_eq!(caller.chunk(), None);
    ingress.join().unwrap();
}

/// The list is one piece, which is handed over whole long before the client has taken it.
#[test]
fn a_response_that_is_still_being_written_is_not_cut() {
    let mut ingress = TestIngress::embedded();
    let large = "x".repeat(100_000);
    for number in 0..80 {
        let app = format!(
            r#"{{"name":"app-{number}","backend":"http://127.0.0.1:1","env_vars":{{"A":"{large}"}}}}"#
        );
        ingress.post_json("app/Run", &app).expect(200);
    }
    let mut caller = ingress.caller();
    caller.send(
        "POST /v1/app/List HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev\r\nContent-Length: 0\r\n\r\n",
    );
    let head = caller.head();
    ingress.advance(Stage::Draining);
    eventually("new connections are refused", || {
        TcpStream::connect(ingress.address).is_err()
    });
    assert!(caller.try_body(&head).unwrap().len() > 80 * large.len());
    ingress.join().unwrap();
}

#[test]
fn a_second_request_whose_head_is_under_way_is_answered() {
    let mut blog = blog(|_| {});
    let mut caller = blog.ingress.caller();
    caller.get(BLOG, "/").expect(200);
    caller.send("GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n");
    let mut other = blog.in_flight();
    blog.ingress.advance(Stage::Draining);
    eventually("new connections are refused", || blog.refuses_connections());
    caller.send("\r\n");
    caller.reply().expect(200);
    blog.gate.open();
    other.reply().expect(200);
    blog.ingress.join().unwrap();
}

#[test]
fn a_request_that_is_here_when_the_drain_begins_is_answered() {
    let blog = blog(|_| {});
    let mut callers: Vec<Caller> = (0..100).map(|_| blog.ingress.caller()).collect();
    for used in &mut callers[..50] {
        used.get(BLOG, "/").expect(200);
    }
    for caller in &mut callers {
        caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    }
    blog.ingress.advance(Stage::Draining);
    for caller in &mut callers {
        caller.reply().expect(200);
    }
}
