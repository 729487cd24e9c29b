//! A backend whose name has several addresses, of which some fail: who notices, and for how long.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use m3o_ingress::config::Config;
use socket2::{Domain, Socket, Type};

use crate::harness::backend::response;
use crate::harness::http2_backend::{Asked, Http2Backend, Offers};
use crate::harness::{Answering, TestApi, TestBackend, TestIngress, TestNames, eventually};

const BLOG: &str = "blog.m3o.app";

/// An ingress before one app, whose backend is at several addresses.
struct Named {
    ingress: TestIngress,
    _api: TestApi,
    _names: TestNames,
}

impl Named {
    /// The backend is at `hosts` of loopback, in this order, at one port.
    fn at(hosts: &[u8], url: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let names = TestNames::new();
        for host in hosts {
            names.add_address("backend.example", IpAddr::from([127, 0, 0, *host]));
        }
        let api = TestApi::with_app("blog", url);
        let ingress = TestIngress::before_with(&api, |config| {
            config.backends.dns = vec![names.address.into()];
            config.outliers.failures = 3;
            config.outliers.base = Duration::from_secs(3600);
            config.outliers.most = Duration::from_secs(3600);
            // Looked at often, because the names that are out are.
            config.timeouts.pool = Duration::from_millis(200);
            adjust(config);
        });
        Self {
            ingress,
            _api: api,
            _names: names,
        }
    }

    fn http(hosts: &[u8], port: u16, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::at(hosts, &format!("http://backend.example:{port}"), adjust)
    }

    fn status(&self) -> u16 {
        self.ingress.caller().post(BLOG, "/", "", b"x").status()
    }

    #[track_caller]
    fn ejections(&self) -> f64 {
        self.ingress.metric("m3o_ingress_backend_ejections_total")
    }

    #[track_caller]
    fn out(&self) -> f64 {
        self.ingress.metric("m3o_ingress_backend_ejected")
    }
}

fn host(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

/// Answers over a connection that is not kept, so that each request has one of its own.
fn answer_once(answering: &mut Answering) {
    answering.body();
    answering.write(response("200 OK", "Connection: close\r\n", "hello"));
    answering.close();
}

/// What `first` begins, and what `second` begins at the same port of another address.
fn at_one_port<A, B>(
    first: impl Fn() -> (A, u16),
    second: impl Fn(u16) -> io::Result<B>,
) -> (A, B, u16) {
    loop {
        let (one, port) = first();
        // Somebody else may have that port there.
        if let Ok(other) = second(port) {
            return (one, other, port);
        }
    }
}

/// A backend at any port of 127.0.0.`last`.
fn anywhere(
    last: u8,
    script: impl Fn(&mut Answering) + Send + Sync + 'static,
) -> (TestBackend, u16) {
    let backend = TestBackend::scripted_at(host(last, 0), script).unwrap();
    let port = backend.address.port();
    (backend, port)
}

/// A socket that has an address and does not listen there, so nobody else does.
fn nobody_at(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Two backends at one port, the first at 127.0.0.2 and the second at 127.0.0.3.
fn two(
    first: impl Fn(&mut Answering) + Clone + Send + Sync + 'static,
    second: impl Fn(&mut Answering) + Clone + Send + Sync + 'static,
) -> (TestBackend, TestBackend) {
    let (one, other, _) = at_one_port(
        || anywhere(2, first.clone()),
        |port| TestBackend::scripted_at(host(3, port), second.clone()),
    );
    (one, other)
}

/// A good one at 127.0.0.3, and nobody at the same port of 127.0.0.2.
fn one_beside_nobody() -> (TestBackend, Socket, u16) {
    at_one_port(|| anywhere(3, answer_once), |port| nobody_at(host(2, port)))
}

#[test]
fn connections_are_spread_over_the_addresses_of_a_name() {
    let (one, other) = two(answer_once, answer_once);
    let named = Named::http(&[2, 3], one.address.port(), |_| {});
    for _ in 0..10 {
        assert_eq!(named.status(), 200);
    }
    assert_eq!((one.seen().len(), other.seen().len()), (5, 5));
    assert_eq!(named.ejections(), 0.0);
}

#[test]
fn an_address_that_refuses_connections_is_left_out() {
    let (good, _nobody, port) = one_beside_nobody();
    let named = Named::http(&[2, 3], port, |_| {});
    for _ in 0..10 {
        assert_eq!(named.status(), 200);
    }
    assert_eq!(good.seen().len(), 10);
    assert_eq!((named.ejections(), named.out()), (1.0, 1.0));
}

#[test]
fn an_address_that_never_accepts_is_left_out() {
    let (good, socket, port) = one_beside_nobody();
    // The system takes two for us, and drops what comes after them.
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&host(2, port), Duration::from_millis(50)) {
        filling.push(stream);
        assert!(filling.len() < 100, "it accepts without end");
    }
    let named = Named::http(&[2, 3], port, |config| config.outliers.failures = 2);
    for _ in 0..10 {
        assert_eq!(named.status(), 200);
    }
    assert_eq!(good.seen().len(), 10);
    assert_eq!((named.ejections(), named.out()), (1.0, 1.0));
    drop(listener);
}

#[test]
fn an_address_that_breaks_off_before_it_answers_is_left_out() {
    let (bad, good) = two(
        |answering| {
            answering.body();
            answering.reset();
        },
        answer_once,
    );
    let named = Named::http(&[2, 3], bad.address.port(), |_| {});
    let statuses: Vec<u16> = (0..20).map(|_| named.status()).collect();
    let failed = statuses.iter().filter(|status| **status == 502);
    assert_eq!(failed.count(), 3, "{statuses:?}");
    assert_eq!((bad.seen().len(), good.seen().len()), (3, 17));
    assert_eq!(named.out(), 1.0);
}

#[test]
fn an_address_that_speaks_something_else_is_left_out() {
    let (bad, _good) = two(
        |answering| {
            answering.body();
            answering.write("SSH-2.0-OpenSSH_9.6\r\n\r\n");
            answering.close();
        },
        answer_once,
    );
    let named = Named::http(&[2, 3], bad.address.port(), |_| {});
    let failed = (0..20).filter(|_| named.status() == 502).count();
    assert_eq!((failed, named.out()), (3, 1.0));
}

#[test]
fn an_address_that_does_not_answer_in_time_is_left_out() {
    let (bad, _good) = two(Answering::wait_for_close, answer_once);
    let named = Named::http(&[2, 3], bad.address.port(), |config| {
        config.timeouts.response = Duration::from_millis(400);
        config.outliers.failures = 2;
    });
    let failed = (0..10).filter(|_| named.status() == 504).count();
    assert_eq!((failed, named.out()), (2, 1.0));
}

#[test]
fn a_client_that_does_not_wait_for_its_answer_blames_nobody() {
    let (slow, other) = two(Answering::wait_for_close, Answering::wait_for_close);
    let named = Named::http(&[2, 3], slow.address.port(), |config| {
        config.outliers.failures = 1;
    });
    for round in 1..=6 {
        let mut caller = named.ingress.caller();
        caller.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        eventually("it is asked", || {
            slow.seen().len() + other.seen().len() == round
        });
        drop(caller);
        eventually("it is let go", || slow.closed() + other.closed() == round);
    }
    assert_eq!(named.ejections(), 0.0);
}

#[test]
fn errors_of_the_app_itself_leave_nothing_out_unless_they_are_to() {
    let failing = |answering: &mut Answering| {
        answering.body();
        answering.write(
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        );
        answering.close();
    };
    for (status, expected) in [(false, 0.0), (true, 1.0)] {
        let (bad, _good) = two(failing, answer_once);
        let named = Named::http(&[2, 3], bad.address.port(), |config| {
            config.outliers.status = status;
        });
        for _ in 0..10 {
            named.status();
        }
        assert_eq!(named.ejections(), expected);
    }
}

#[test]
fn an_address_is_tried_again_after_its_time() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let (first, _second) = two(
        move |answering| match state.load(Ordering::SeqCst) {
            true => answering.reset(),
            false => answer_once(answering),
        },
        answer_once,
    );
    let named = Named::http(&[2, 3], first.address.port(), |config| {
        config.outliers.base = Duration::from_millis(300);
    });
    while named.ejections() == 0.0 {
        named.status();
    }
    broken.store(false, Ordering::SeqCst);
    let before = first.seen().len();
    eventually("it is asked again", || {
        named.status() == 200 && first.seen().len() > before
    });
    eventually("it is out no more", || named.out() == 0.0);
}

#[test]
fn whoever_is_left_out_is_tried_where_all_others_fail() {
    let (good, nobody, port) = one_beside_nobody();
    let named = Named::http(&[2, 3], port, |config| config.outliers.failures = 1);
    for _ in 0..2 {
        assert_eq!(named.status(), 200);
    }
    assert_eq!(named.out(), 1.0);
    drop(good);
    assert_eq!(named.status(), 502, "nobody is there");
    drop(nobody);
    let _late = TestBackend::scripted_at(host(2, port), answer_once).unwrap();
    assert_eq!(named.status(), 200);
    assert_eq!(named.ejections(), 1.0);
}

#[test]
fn one_that_fails_stays_where_its_share_is_out_already() {
    let (bad, _nobody, port) = at_one_port(
        || anywhere(2, Answering::reset),
        |port| Ok([nobody_at(host(3, port))?, nobody_at(host(4, port))?]),
    );
    let named = Named::http(&[2, 3, 4], port, |config| config.outliers.failures = 1);
    for _ in 0..9 {
        assert_eq!(named.status(), 502);
    }
    assert_eq!((named.ejections(), named.out()), (1.0, 1.0));
    assert!(!bad.seen().is_empty());
}

#[test]
fn all_workers_leave_out_what_one_has_seen_fail() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (bad, _good) = two(
        move |answering| {
            count.fetch_add(1, Ordering::SeqCst);
            answering.reset();
        },
        answer_once,
    );
    let named = Named::http(&[2, 3], bad.address.port(), |config| {
        config.listen.workers = 4;
    });
    for _ in 0..40 {
        named.status();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(named.ejections(), 1.0);
}

#[test]
fn over_http2_an_address_is_left_out_too() {
    let (first, second, port) = at_one_port(
        || {
            let first = TcpListener::bind(host(2, 0)).unwrap();
            let port = first.local_addr().unwrap().port();
            (first, port)
        },
        |port| TcpListener::bind(host(3, port)),
    );
    let over = |listener| Offers {
        over: Some(listener),
        ..Offers::default()
    };
    let bad = Http2Backend::offering(&over(first), async |mut asked: Asked| {
        asked.respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let good = Http2Backend::offering(&over(second), async |asked: Asked| asked.answer("hello"));
    let named = Named::at(&[2, 3], &format!("h2c://backend.example:{port}"), |_| {});
    let statuses: Vec<u16> = (0..10).map(|_| named.status()).collect();
    assert_eq!(statuses[..3], [502; 3], "all share a connection");
    assert_eq!(statuses[3..], [200; 7]);
    assert_eq!((bad.opened(), good.opened()), (1, 1));
    eventually("nothing is kept there", || bad.closed() == 1);
    assert_eq!(named.out(), 1.0);
}
