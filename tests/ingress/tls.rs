//! HTTPS: certificates by name, what both sides agree to, and what is refused.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::server::shutdown::Stage;
use m3o_ingress::telemetry::Format;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::harness::backend::ok;
use crate::harness::secure::{Authority, Clients};
use crate::harness::{Caller, TestApi, TestBackend, TestIngress, eventually};

/// An ingress with certificates, in front of one app.
struct Site {
    authority: Authority,
    ingress: TestIngress,
    backend: TestBackend,
    _api: TestApi,
}

const BLOG: &str = "blog.m3o.app";

impl Site {
    fn new(pairs: &[(&str, &[&str])]) -> Self {
        Self::with(pairs, |_| {})
    }

    fn with(pairs: &[(&str, &[&str])], adjust: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new();
        for (label, names) in pairs {
            authority.put(label, names);
        }
        let backend = TestBackend::scripted(|answering| {
            answering.body();
            match &*answering.target() {
                "/cut" => {
                    answering.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                    answering.close();
                }
                target => {
                    let target = target.to_owned();
                    answering.write(ok(&target));
                }
            }
        });
        let api = TestApi::with_app("blog", &backend.url());
        let ingress = TestIngress::before_with(&api, |config| {
            config.listen.https = vec!["127.0.0.1:0".parse().unwrap()];
            config.tls.certs = authority.folder().to_owned();
            config.tls.watch = Duration::from_millis(20);
            adjust(config);
        });
        Self {
            authority,
            ingress,
            backend,
            _api: api,
        }
    }

    fn handshakes(&self, result: &str) -> f64 {
        let series = format!("m3o_ingress_tls_handshakes_total{{result=\"{result}\"}}");
        self.ingress.metric(&series)
    }

    /// The alert that ends the handshake for `name`.
    #[track_caller]
    fn alert(&self, clients: &Clients, name: &str) -> AlertDescription {
        let address = self.ingress.secure();
        let error = clients.connect(address, name).err().expect("a failure");
        let told = error.get_ref().and_then(|error| error.downcast_ref());
        match told {
            Some(rustls::Error::AlertReceived(alert)) => *alert,
            _ => panic!("{error:?}"),
        }
    }
}

const WILD: (&str, &[&str]) = ("wild", &["*.m3o.app", "m3o.app"]);

#[test]
fn the_name_picks_the_certificate_an_exact_one_before_a_wildcard() {
    let site = Site::new(&[WILD]);
    let exact = site.authority.put("exact", &["shop.m3o.app"]);
    let clients = site.authority.clients();
    eventually("both are served", || {
        let stranger = site.authority.clients();
        let caller = stranger.connect(site.ingress.secure(), "shop.m3o.app");
        caller.unwrap().shown() == exact
    });
    for name in [BLOG, "BLOG.m3o.app", "m3o.app"] {
        let caller = clients.connect(site.ingress.secure(), name).unwrap();
        assert_ne!(caller.shown(), exact, "{name}");
    }
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    for target in ["/one", "/two"] {
        assert_eq!(caller.get(BLOG, target).expect(200).text(), target);
    }
    let seen = site.backend.seen();
    assert_eq!(seen[0].field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(seen[0].field("X-Forwarded-Port"), Some("443"));
    assert_eq!(site.handshakes("unknown_name"), 0.0);
}

#[test]
fn a_name_without_a_certificate_ends_with_the_alert_that_says_so() {
    let site = Site::new(&[WILD]);
    for clients in [
        site.authority.clients(),
        site.authority.clients_of(&[&TLS12], &[]),
    ] {
        for name in ["other.test", "a.b.m3o.app", "evilm3o.app"] {
            assert_eq!(
                site.alert(&clients, name),
                AlertDescription::UnrecognisedName
            );
        }
        // Addresses are not named in a handshake.
        assert_eq!(
            site.alert(&clients, "127.0.0.1"),
            AlertDescription::UnrecognisedName
        );
    }
    assert_eq!(u8::from(AlertDescription::UnrecognisedName), 112);
    eventually("all are counted", || site.handshakes("unknown_name") == 8.0);
    assert_eq!(site.backend.seen().len(), 0);
}

#[test]
fn the_default_is_for_unknown_names_and_for_clients_without_one() {
    let site = Site::with(&[WILD, ("main", &["main.test", "127.0.0.1"])], |config| {
        config.tls.default = "main".to_owned();
    });
    let clients = site.authority.clients();
    // By the address, which the certificate names.
    let mut caller = clients.connect(site.ingress.secure(), "127.0.0.1").unwrap();
    assert_eq!(caller.get(BLOG, "/").status(), 200, "no name, so any host");
    // The client finds out that this is not who it looked for.
    let error = clients.connect(site.ingress.secure(), "other.test").err();
    let error = error.unwrap().to_string();
    assert!(
        error.contains("NotValidForName") || error.contains("not valid for name"),
        "{error}"
    );
}

#[test]
fn a_certificate_for_the_address_is_for_clients_without_a_name() {
    let site = Site::new(&[WILD, ("address", &["127.0.0.1"])]);
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), "127.0.0.1").unwrap();
    assert_eq!(caller.get(BLOG, "/").status(), 200);
}

#[test]
fn a_request_for_a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let site = Site::new(&[("blog", &[BLOG]), ("shop", &["shop.m3o.app"])]);
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    for host in [
        "shop.m3o.app",
        "m3o.app",
        "user.m3o.com",
        "127.0.0.1",
        "x.blog.m3o.app",
    ] {
        let reply = caller.get(host, "/");
        assert_eq!(reply.status(), 421, "{host}");
        assert!(reply.field("X-Request-Id").is_some());
        assert!(reply.field("Proxy-Status").is_some());
    }
    // The authority of an absolute target wins over Host, here too.
    assert_eq!(caller.get(BLOG, "http://shop.m3o.app/").status(), 421);
    assert_eq!(site.backend.seen().len(), 0);
    for host in [BLOG, "BLOG.M3O.APP:8443", "blog.m3o.app."] {
        assert_eq!(caller.get(host, "/").status(), 200, "{host}");
    }
    // Without TLS there is no certificate to compare with.
    assert_eq!(site.ingress.get(BLOG, "/").status(), 200);
}

#[test]
fn of_a_misdirected_request_no_path_is_logged_as_it_may_hold_a_token() {
    let site = Site::with(&[("blog", &[BLOG])], |config| {
        config.log.format = Format::Combined;
    });
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    let fields = "Host: user.m3o.com\r\nReferer: https://user.m3o.com/zqcanaryqz\r\n";
    let head = format!("GET /zqcanaryqz HTTP/1.1\r\n{fields}\r\n");
    caller.send(head).unwrap();
    assert_eq!(caller.reader.reply("GET").unwrap().status(), 421);
    eventually("the line is there", || site.ingress.log().contains(" 421 "));
    let log = site.ingress.log();
    assert!(log.contains("GET /[hidden] HTTP/1.1"), "{log}");
    assert!(!log.contains("zqcanaryqz"), "{log}");
}

#[test]
fn both_versions_are_spoken_and_none_below() {
    let site = Site::new(&[WILD]);
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let clients = site.authority.clients_of(&[version], &[b"http/1.1"]);
        let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
        assert_eq!(caller.session().protocol_version(), Some(expected));
        assert_eq!(caller.session().alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(caller.get(BLOG, "/").status(), 200);
    }
    // A ClientHello of TLS 1.1 alone: version, random, no session, one suite, no compression.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let hello = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat();
    let mut stream = TcpStream::connect(site.ingress.secure()).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _reset_or_not = stream.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
}

#[test]
fn the_exchange_of_keys_that_outlasts_quantum_machines_comes_first() {
    let site = Site::new(&[WILD]);
    let clients = site.authority.clients_of(&[&TLS13], &[]);
    let caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    let group = caller.session().negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn a_protocol_that_we_do_not_speak_ends_the_handshake() {
    let site = Site::new(&[WILD]);
    for protocol in [&b"spdy/3"[..], b"acme-tls/1"] {
        let clients = site.authority.clients_of(rustls::ALL_VERSIONS, &[protocol]);
        assert_eq!(
            site.alert(&clients, BLOG),
            AlertDescription::NoApplicationProtocol
        );
    }
    eventually("both are counted", || site.handshakes("no_protocol") == 2.0);
}

#[test]
fn a_session_goes_on_over_any_worker_and_never_under_another_name() {
    let site = Site::with(&[WILD], |config| config.listen.workers = 2);
    for version in [&TLS12, &TLS13] {
        let clients = site.authority.clients_of(&[version], &[]);
        let kind = |name: &str| {
            let mut caller = clients.connect(site.ingress.secure(), name).unwrap();
            // Tickets come with the first answer.
            assert_ne!(caller.get(name, "/").status(), 421);
            assert!(!caller.session().is_early_data_accepted(), "no early data");
            caller.session().handshake_kind()
        };
        assert_eq!(kind(BLOG), Some(HandshakeKind::Full));
        // The system spreads them over both workers.
        for _ in 0..16 {
            assert_eq!(kind(BLOG), Some(HandshakeKind::Resumed));
        }
        assert_ne!(kind("other.m3o.app"), Some(HandshakeKind::Resumed));
    }
    assert!(site.handshakes("resumed") >= 32.0);
}

#[test]
fn no_ticket_allows_early_data() {
    let site = Site::new(&[WILD]);
    let clients = site.authority.clients_of(&[&TLS13], &[]);
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    assert_eq!(caller.get(BLOG, "/").status(), 200);
    let name = rustls::pki_types::ServerName::try_from(BLOG).unwrap();
    let mut next = rustls::ClientConnection::new(Arc::clone(&clients.0), name).unwrap();
    assert!(next.early_data().is_none(), "the ticket has no word of it");
}

#[test]
fn a_handshake_that_takes_too_long_is_cut() {
    let site = Site::with(&[WILD], |config| {
        config.timeouts.header = Duration::from_millis(200);
    });
    // Nothing at all, and the beginning of a ClientHello.
    for begun in [&b""[..], &[22, 3, 1, 1, 0, 1, 0]] {
        let mut stream = TcpStream::connect(site.ingress.secure()).unwrap();
        stream.write_all(begun).unwrap();
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(
            ended.is_ok() || ended.as_ref().is_err_and(reset),
            "{ended:?}"
        );
    }
    eventually("both are counted", || site.handshakes("timed_out") == 2.0);
    eventually("their permits are back", || {
        site.ingress.metric("m3o_ingress_connections") == 0.0
    });
}

#[test]
fn what_speaks_plain_http_is_told_to_use_https() {
    let site = Site::new(&[WILD]);
    let mut caller = Caller::connect(site.ingress.secure());
    let reply = caller.get(BLOG, "/");
    assert_eq!(reply.status(), 400);
    assert!(reply.text().contains("https://"), "{}", reply.text());
    assert_eq!(reply.field("Connection"), Some("close"));
    assert!(caller.rest().is_empty());
    eventually("it is counted", || site.handshakes("not_tls") == 1.0);
    // What is neither gets no page.
    let mut caller = Caller::connect(site.ingress.secure());
    caller.send([0; 64]);
    assert!(!caller.rest().starts_with(b"HTTP"));
}

#[test]
fn connections_of_a_handshake_count_against_the_limits() {
    let site = Site::with(&[WILD], |config| config.limits.per_peer = 2);
    let held: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(site.ingress.secure()).unwrap())
        .collect();
    let clients = site.authority.clients();
    eventually("the next is turned away", || {
        let failed = clients.connect(site.ingress.secure(), BLOG).is_err();
        failed
            && site
                .ingress
                .metric("m3o_ingress_shed_total{reason=\"peer\"}")
                >= 1.0
    });
    drop(held);
    eventually("there is room again", || {
        clients.connect(site.ingress.secure(), BLOG).is_ok()
    });
}

#[test]
fn a_whole_answer_ends_in_order_and_a_cut_one_does_not() {
    let site = Site::new(&[WILD]);
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n");
    caller.send(request).unwrap();
    assert!(caller.ends_in_order());
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    caller
        .send(format!("GET /cut HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"))
        .unwrap();
    assert!(
        !caller.ends_in_order(),
        "the client must see that something is missing"
    );
}

#[test]
fn an_idle_connection_ends_in_order_in_a_drain_and_a_silent_one_at_once() {
    let mut site = Site::new(&[WILD]);
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    assert_eq!(caller.get(BLOG, "/").status(), 200);
    let mut silent = TcpStream::connect(site.ingress.secure()).unwrap();
    eventually("both are in", || {
        site.ingress.metric("m3o_ingress_connections") == 2.0
    });
    site.ingress.advance(Stage::Draining);
    assert!(caller.ends_in_order());
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    site.ingress.join().unwrap();
}

#[test]
fn a_hundred_reloads_under_load_fail_nothing() {
    let site = Site::new(&[WILD]);
    let clients = site.authority.clients();
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kept = &mut clients.connect(site.ingress.secure(), BLOG).unwrap();
    let first = kept.shown();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let fresh = || clients.connect(site.ingress.secure(), BLOG).unwrap();
                let mut lasting = fresh();
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(lasting.get(BLOG, "/old").expect(200).text(), "/old");
                    assert_eq!(fresh().get(BLOG, "/new").expect(200).text(), "/new");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let swapped = || {
            site.ingress
                .metric("m3o_ingress_tls_certificates_swapped_total")
        };
        for round in 0..100 {
            let before = swapped();
            site.authority.put("wild", WILD.1);
            eventually("it is taken over", || swapped() > before);
            if round % 10 == 0 {
                let asked_before = asked.load(Ordering::SeqCst);
                eventually("requests go on", || {
                    asked.load(Ordering::SeqCst) > asked_before
                });
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    // The connection of before lives on, and so do new ones, with another certificate.
    assert_eq!(kept.get(BLOG, "/").status(), 200);
    let stranger = site.authority.clients();
    let last = stranger.connect(site.ingress.secure(), BLOG).unwrap();
    assert_ne!(last.shown(), first);
}

#[test]
fn a_broken_pair_keeps_the_last_good_one_and_says_so() {
    let site = Site::new(&[WILD]);
    let clients = site.authority.clients();
    let bad = || site.ingress.metric("m3o_ingress_tls_bad_pairs");
    let first = clients
        .connect(site.ingress.secure(), BLOG)
        .unwrap()
        .shown();
    let (other, _) = site.authority.sign(&["*.m3o.app"]);
    site.authority.write("wild.crt", &other);
    eventually("it is noticed", || bad() == 1.0);
    // Whoever goes on with a session is shown nothing new.
    let shown = || {
        let stranger = site.authority.clients();
        let caller = stranger.connect(site.ingress.secure(), BLOG);
        caller.unwrap().shown()
    };
    assert_eq!(shown(), first);
    let whole = site.authority.put("wild", WILD.1);
    eventually("the whole pair is served", || shown() == whole);
    eventually("all is well", || bad() == 0.0);
    for file in ["wild.crt", "wild.key"] {
        std::fs::remove_file(site.authority.folder().join(file)).unwrap();
    }
    eventually("what is gone is not served", || {
        clients.connect(site.ingress.secure(), BLOG).is_err()
    });
}

#[test]
fn a_pair_that_is_bad_at_the_start_is_told_of_and_keeps_no_other_from_its_names() {
    let site = Site::with(&[WILD], |config| {
        let folder = &config.tls.certs;
        let copy = |from: &str, to: &str| {
            std::fs::copy(folder.join(from), folder.join(to)).unwrap();
        };
        // The names of one, and the key of another.
        copy("wild.crt", "bad.crt");
        let other = Authority::new();
        other.put("other", &["other.test"]);
        std::fs::copy(other.folder().join("other.key"), folder.join("bad.key")).unwrap();
    });
    let bad = || site.ingress.metric("m3o_ingress_tls_bad_pairs");
    eventually("it is noticed", || bad() == 1.0);
    let clients = site.authority.clients();
    let mut caller = clients.connect(site.ingress.secure(), BLOG).unwrap();
    assert_eq!(caller.get(BLOG, "/").status(), 200);
}

#[test]
fn the_operator_sees_when_certificates_end() {
    let site = Site::new(&[WILD]);
    let series = "m3o_ingress_tls_certificate_not_after_timestamp_seconds{certificate=\"wild\"}";
    assert!(
        site.ingress.metric(series) > 4e9,
        "rcgen's own end is far away"
    );
    let ready = |target: &str| {
        let mut caller = Caller::connect(site.ingress.admin);
        caller.get("localhost", target).expect(200).text()
    };
    assert_eq!(ready("/readyz"), "ok\n");
    assert_eq!(
        ready("/readyz?verbose"),
        "ok\ncertificate wild ends 4096-01-01T00:00:00Z\n"
    );
}
