//! Load balancers that name their clients by the PROXY protocol, and whoever only says so.

use std::time::Duration;

use m3o_ingress::config::Config;

use crate::harness::backend::ok;
use crate::harness::caller::timed_out;
use crate::harness::front::{BLOG, Front};
use crate::harness::{Caller, eventually};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 50000 80\r\n";

/// A binary header of `command` and `family`, with `data`.
fn block(command: u8, family: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    let fixed = b"\r\n\r\n\0\r\nQUIT\n";
    [&fixed[..], &[command, family], &length, data].concat()
}

/// One that names `2001:db8::7`, with an extension behind its addresses.
fn binary() -> Vec<u8> {
    let mut data = vec![0; 36];
    data[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    data[15] = 7;
    data.extend([0x04, 0, 3, b'a', b'b', b'c']);
    block(0x21, 0x21, &data)
}

/// An ingress that we are the load balancer of.
fn front() -> Front {
    front_with(|_| {})
}

fn front_with(adjust: impl FnOnce(&mut Config)) -> Front {
    let behind = |config: &mut Config| {
        config.listen.proxy_protocol = config.listen.http.clone();
        config.backends.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        adjust(config);
    };
    Front::scripted_with(behind, |answering| {
        answering.body();
        answering.write(ok("hello"));
    })
}

impl Front {
    /// The answer to a request after `header`, on a connection that stays open.
    #[track_caller]
    fn asked_after(&self, header: impl AsRef<[u8]>, status: u16) -> Caller {
        let mut caller = self.ingress.caller();
        caller.send([header.as_ref(), REQUEST.as_bytes()].concat());
        caller.reply().expect(status);
        caller
    }

    #[track_caller]
    fn closed(&self, reason: &str) -> f64 {
        let labels = format!("{{reason=\"{reason}\"}}");
        self.ingress
            .metric(&format!("m3o_ingress_proxy_protocol_refused_total{labels}"))
    }

    #[track_caller]
    fn forwarded_for(&self) -> String {
        let seen = self.backend.last();
        seen.field("X-Forwarded-For").unwrap().to_owned()
    }
}

#[test]
fn the_client_that_is_announced_is_forwarded_and_logged() {
    for (header, client) in [
        (LINE.as_bytes(), "192.0.2.7"),
        (&binary(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n", "192.0.2.9"),
    ] {
        let front = front();
        let mut caller = front.asked_after(header, 200);
        assert_eq!(front.forwarded_for(), client);
        caller.get(BLOG, "/again").expect(200);
        assert_eq!(front.forwarded_for(), client);
        eventually("both requests are logged", || {
            front.ingress.access_lines().len() == 2
        });
        for line in front.ingress.access_lines() {
            assert_eq!(line["client.address"], client, "{line}");
        }
    }
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let front = front();
    for header in [LINE.as_bytes(), &binary()] {
        let mut caller = front.ingress.caller();
        for byte in header {
            caller.send([*byte]);
        }
        caller.get(BLOG, "/").expect(200);
        // With a part of the request, and the rest of it later.
        let mut caller = front.ingress.caller();
        let (start, rest) = REQUEST.split_at(20);
        caller.send(&header[..9]);
        caller.send([&header[9..], start.as_bytes()].concat());
        caller.send(rest);
        caller.reply().expect(200);
    }
    assert_eq!(front.backend.seen().len(), 4);
}

#[test]
fn where_nobody_is_named_the_load_balancer_is_the_client() {
    let front = front();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        block(0x20, 0, &[]),
        block(0x21, 0, &[]),
        block(0x21, 0x31, &[0; 216]),
    ] {
        front.asked_after(header, 200);
        assert_eq!(front.forwarded_for(), "127.0.0.1");
    }
}

#[test]
fn whoever_is_not_trusted_is_closed_and_announces_nobody() {
    let front = front_with(|config| {
        config.backends.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    });
    for _ in 0..3 {
        let mut caller = front.ingress.caller();
        let _closed_already = caller.try_send([LINE, REQUEST].concat());
        assert!(caller.rest().is_empty());
    }
    assert_eq!(front.closed("untrusted"), 3.0);
    assert!(front.backend.seen().is_empty());
}

#[test]
fn a_malformed_header_is_closed_and_nothing_after_it_is_read() {
    let front = front();
    let malformed = [
        REQUEST.into(),
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n".into(),
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 80\n".into(),
        "PROXY TCP4 192.0.2.7\r\n\r\n".into(),
        format!("PROXY UNKNOWN {}", "x".repeat(100)).into(),
        block(0x21, 0x11, &[0; 11]),
        block(0x31, 0x11, &[0; 12]),
        block(0x21, 0x11, &[0; 4097]),
        // TLS.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    let count = malformed.len();
    for header in malformed {
        let mut caller = front.ingress.caller();
        let _closed_already = caller.try_send([&header[..], REQUEST.as_bytes()].concat());
        assert!(caller.rest().is_empty(), "{}", header.escape_ascii());
    }
    assert_eq!(front.closed("malformed"), count as f64);
    assert!(front.backend.seen().is_empty());
    front.asked_after(LINE, 200);
}

#[test]
fn a_header_that_breaks_off_is_counted_and_a_look_at_the_port_is_not() {
    let front = front();
    drop(front.ingress.caller());
    let mut caller = front.ingress.caller();
    caller.send("PROXY TCP4 192.");
    drop(caller);
    eventually("it is counted", || front.closed("malformed") == 1.0);
    front.asked_after(LINE, 200);
    assert_eq!(front.closed("malformed"), 1.0);
    assert_eq!(front.closed("timed_out"), 0.0);
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let front = front_with(|config| config.timeouts.header = Duration::from_millis(200));
    for start in [&b""[..], b"PROXY ", &binary()[..20]] {
        let mut caller = front.ingress.caller();
        caller.send(start);
        assert!(caller.rest().is_empty());
    }
    eventually("all are counted", || front.closed("timed_out") == 3.0);
}

#[test]
fn each_client_that_is_announced_has_its_own_limit_and_the_load_balancer_none() {
    let front = front_with(|config| config.limits.per_peer = 1);
    let of = |client: &str| format!("PROXY TCP4 {client} 198.51.100.1 1 80\r\n");
    let first = front.asked_after(of("192.0.2.1"), 200);
    let _second = front.asked_after(of("192.0.2.2"), 200);
    front.asked_after(of("192.0.2.1"), 503);
    let _unnamed = [(); 3].map(|()| front.asked_after("PROXY UNKNOWN\r\n", 200));
    let shed = front
        .ingress
        .metric(r#"m3o_ingress_shed_total{reason="peer"}"#);
    assert_eq!(shed, 1.0);
    drop(first);
    eventually("its place is free again", || {
        let mut caller = front.ingress.caller();
        caller.send(of("192.0.2.1") + REQUEST);
        caller.reply().status() == 200
    });
}

#[test]
fn connections_whose_header_is_to_come_count_in_all() {
    let front = front_with(|config| config.limits.connections = 2);
    let waiting = [(); 2].map(|()| front.ingress.caller());
    let mut third = front.ingress.caller();
    third.reply().expect(503);
    drop(waiting);
    eventually("their places are free again", || {
        let mut caller = front.ingress.caller();
        // Turned away before it has said anything: the write may fail.
        let _late = caller.try_send([LINE, REQUEST].concat());
        caller.try_reply().is_ok_and(|reply| reply.status() == 200)
    });
}

#[test]
fn a_client_is_trusted_for_what_it_is_and_not_for_who_announces_it() {
    let front = front_with(|config| {
        let cdn = "203.0.113.0/24".parse().unwrap();
        config.backends.trusted_proxies.push(cdn);
    });
    let forwarded_for = |header: &str| {
        let fields = "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Proto: https\r\n\r\n";
        let request = REQUEST.replace("\r\n\r\n", "\r\n") + fields;
        let mut caller = front.ingress.caller();
        caller.send(header.to_owned() + &request);
        caller.reply().expect(200);
        let proto = front
            .backend
            .last()
            .field("X-Forwarded-Proto")
            .unwrap()
            .to_owned();
        (front.forwarded_for(), proto)
    };
    let of = |chain: &str, proto: &str| (chain.to_owned(), proto.to_owned());
    assert_eq!(forwarded_for(LINE), of("192.0.2.7", "http"));
    let cdn = "PROXY TCP4 203.0.113.5 198.51.100.1 1 80\r\n";
    let chain = of("198.51.100.9, 203.0.113.5", "https");
    assert_eq!(forwarded_for(cdn), chain);
}

#[test]
fn a_listener_that_asks_for_no_header_takes_none() {
    let front = front_with(|config| config.listen.proxy_protocol.clear());
    let mut caller = front.ingress.caller();
    caller.send(LINE);
    caller.reply().expect(400);
    front.asked_after("", 200);
    assert_eq!(front.forwarded_for(), "127.0.0.1");
}

#[test]
fn a_drain_does_not_lose_who_has_just_been_announced() {
    let front = front();
    let mut caller = front.ingress.caller();
    caller.send([LINE, REQUEST].concat());
    front
        .ingress
        .advance(m3o_ingress::server::shutdown::Stage::Draining);
    match caller.try_reply() {
        Ok(reply) => drop(reply.expect(200)),
        Err(error) => panic!("no answer, in time: {}", !timed_out(&error)),
    }
}
