//! What is under way across reloads: nothing of it is lost, and nothing is left behind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::harness::Answering;
use crate::harness::http2::{self, DATA, END_HEADERS, HEADERS};
use crate::harness::http2_backend::{Asked, Http2Backend, Offers};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: blog.m3o.app\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A WebSocket that echoes, a stream of events that are made when they are told to be, an upload whose
/// pieces come back while it goes on, and everything else.
fn script(answering: &mut Answering, events: &Mutex<Receiver<()>>) {
    let target = answering.target();
    match &*target {
        "/ws" => {
            answering.write(ACCEPTED);
            loop {
                let bytes = answering.some();
                if bytes.is_empty() {
                    return answering.close();
                }
                answering.write(bytes);
            }
        }
        "/events" => {
            answering.body();
            answering.write(CHUNKED);
            let events = events.lock().unwrap();
            while events.recv().is_ok() {
                answering.write("5\r\nevent\r\n");
            }
            answering.write("0\r\n\r\n");
        }
        "/echo" => {
            answering.write(CHUNKED);
            while let Ok(Some(piece)) = answering.chunk() {
                answering.write(format!("{:x}\r\n", piece.len()));
                answering.write(piece);
                answering.write("\r\n");
            }
            answering.write("0\r\n\r\n");
        }
        _ => {
            answering.body();
            answering.write(ok("hello"));
        }
    }
}

struct Held {
    websocket: Caller,
    upload: Caller,
    events: Caller,
    event: Option<Sender<()>>,
    frames: Frames,
}

impl Held {
    fn open(ingress: &TestIngress, address: SocketAddr, event: Sender<()>) -> Self {
        let mut websocket = Caller::connect(address);
        websocket.send(HANDSHAKE);
        assert_eq!(websocket.head().status(), 101);
        let mut upload = Caller::connect(address);
        upload.send(format!(
            "POST /echo HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        assert_eq!(upload.head().status(), 200);
        let mut events = Caller::connect(address);
        events.send(format!("GET /events HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(events.head().status(), 200);
        let mut frames = Frames::connect(address);
        let asked = http2::block(&http2::request("POST", BLOG, "/echo"));
        frames.send(HEADERS, END_HEADERS, 1, &asked);
        assert_eq!(frames.status(1), 200);
        assert_eq!(ingress.metric("m3o_ingress_tunnels"), 1.0);
        Self {
            websocket,
            upload,
            events,
            event: Some(event),
            frames,
        }
    }

    /// All of it goes on.
    #[track_caller]
    fn go_on(&mut self, round: usize) {
        let word = format!("round {round:03}");
        self.websocket.send(&word);
        assert_eq!(self.websocket.exactly(word.len()), word.as_bytes());
        self.upload.send(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(self.upload.chunk().unwrap(), word.as_bytes());
        self.event.as_ref().unwrap().send(()).unwrap();
        assert_eq!(self.events.chunk().unwrap(), b"event");
        self.frames.send(DATA, 0, 1, word.as_bytes());
        assert_eq!(self.frames.until(DATA, 1).payload, word.as_bytes());
    }

    /// All of it comes to its own end.
    #[track_caller]
    fn end(mut self) {
        self.event = None;
        assert_eq!(self.events.chunk(), None);
        self.upload.send("0\r\n\r\n");
        assert_eq!(self.upload.chunk(), None);
        self.frames.send(DATA, http2::END_STREAM, 1, b"");
        while !self.frames.until(DATA, 1).ends() {}
    }
}

/// Asks over kept and fresh connections until it is told to stop.
fn load(address: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let mut caller = Caller::connect(address);
        for _ in 0..20 {
            assert_eq!(caller.get(BLOG, "/").expect(200).text(), "hello");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const ROUNDS: usize = 100;

fn with_events() -> (Sender<()>, TestBackend) {
    let (event, events) = channel();
    let events = Mutex::new(events);
    let backend = TestBackend::scripted(move |answering| script(answering, &events));
    (event, backend)
}

#[test]
fn a_hundred_reloads_under_load_lose_nothing_and_leave_nothing() {
    let (event, backend) = with_events();
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| config.listen.workers = 2);
    let mut held = Held::open(&ingress, ingress.address, event);
    let tasks = || ingress.metric("m3o_ingress_tasks");
    // On every worker is a pool, which has a task.
    let mut warm: Vec<Caller> = (0..16).map(|_| ingress.caller()).collect();
    for caller in &mut warm {
        caller.get(BLOG, "/").expect(200);
    }
    drop(warm);
    let connections = || ingress.metric("m3o_ingress_connections");
    eventually("what is held is all there is", || connections() == 4.0);
    let before = tasks();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load(ingress.address, &stop, &answered));
        }
        let mut guest = None;
        for round in 0..ROUNDS {
            let report = ingress
                .reload(|config| {
                    config.hosts.app.truncate(1);
                    config
                        .hosts
                        .app
                        .push(format!("round{round}.example").parse().unwrap());
                    config.timeouts.idle = Duration::from_secs(60 + round as u64);
                    // Now and then with another pool.
                    config.backends.per_backend = 64 + round / 10;
                    match guest {
                        None => config.listen.http.push(loopback()),
                        Some(_) => config.listen.http.truncate(1),
                    }
                })
                .unwrap();
            assert_eq!(report.tunnels, 1);
            guest = match guest {
                None => Some(report.opened[0]),
                Some(gone) => {
                    assert_eq!(report.closed, [gone]);
                    assert!(TcpStream::connect(gone).is_err());
                    None
                }
            };
            if let Some(guest) = guest {
                Caller::connect(guest).get(BLOG, "/").expect(200);
            }
            let host = format!("blog.round{round}.example");
            ingress.get(&host, "/").expect(200);
            held.go_on(round);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > ROUNDS);
    assert_eq!(
        ingress.metric("m3o_ingress_config_reloads_total{result=\"applied\"}"),
        100.0
    );
    assert_eq!(ingress.metric("m3o_ingress_panics_total"), 0.0);
    // What is held keeps the pool that it began with, on each worker.
    eventually("no other task is left of what was replaced", || {
        tasks() <= before + 2.0
    });
    held.end();
    eventually("nor of what was held", || tasks() <= before - 4.0);
}

#[test]
fn what_came_by_a_listener_that_is_gone_finishes_and_then_leaves() {
    let (event, backend) = with_events();
    let gate = Gate::default();
    let held_back = gate.clone();
    let slow = TestBackend::scripted(move |answering| {
        answering.body();
        held_back.wait();
        answering.write(ok("late"));
    });
    let api = TestApi::new();
    api.resolves(
        "app/Resolve",
        &[("blog", &backend.url()), ("slow", &slow.url())],
    );
    let ingress = TestIngress::before_with(&api, |config| config.listen.http.push(loopback()));
    let going = ingress.public[1];
    let mut held = Held::open(&ingress, going, event);
    let mut idle = Caller::connect(going);
    idle.get(BLOG, "/").expect(200);
    let mut waiting = Caller::connect(going);
    waiting.send("GET / HTTP/1.1\r\nHost: slow.m3o.app\r\n\r\n");
    eventually("it is in flight", || slow.seen().len() == 1);
    let mut quiet = Frames::connect(going);
    quiet.is_alive();
    let mut stays = ingress.caller();
    stays.get(BLOG, "/").expect(200);

    let report = ingress
        .reload(|config| config.listen.http.truncate(1))
        .unwrap();
    assert_eq!(report.closed, [going]);
    assert!(TcpStream::connect(going).is_err());
    assert_eq!(idle.rest(), b"", "an idle one is closed");
    assert_eq!(
        quiet.end(),
        Some(http2::NO_ERROR),
        "one of HTTP/2 is told so"
    );
    gate.open();
    let reply = waiting.reply().expect(200);
    assert_eq!(
        (reply.text(), reply.field("Connection")),
        ("late".to_owned(), Some("close"))
    );
    assert_eq!(waiting.rest(), b"");
    stays.get(BLOG, "/").expect(200);
    // What is no request that ends goes on: over HTTP/2 beside the word that there is no more.
    held.websocket.send("still");
    assert_eq!(held.websocket.exactly(5), b"still");
    held.upload.send("2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(held.upload.chunk().unwrap(), b"hi");
    held.event.as_ref().unwrap().send(()).unwrap();
    assert_eq!(held.events.chunk().unwrap(), b"event");
    held.frames.send(DATA, http2::END_STREAM, 1, b"bye");
    let mut came = Vec::new();
    while let Some(frame) = held.frames.next() {
        match frame.kind {
            DATA => came.extend(frame.payload),
            http2::PING => held.frames.send(http2::PING, http2::ACK, 0, &frame.payload),
            _ => {}
        }
    }
    assert_eq!(came, b"bye");
}

#[test]
fn a_request_ends_with_what_it_began_with() {
    let gate = Gate::default();
    let held = gate.clone();
    let front = Front::scripted(move |answering| {
        if answering.target() != "/slow" {
            answering.body();
            return answering.write(ok("hello"));
        }
        answering.write(CHUNKED);
        held.wait();
        answering.write("4\r\nlate\r\n0\r\n\r\n");
    });
    let mut caller = front.ingress.caller();
    caller.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(caller.head().status(), 200);
    // Another pool, and no such host.
    let keys = changed(&front.ingress, |config| {
        config.hosts.app = vec!["apps.example".parse().unwrap()];
        config.backends.connections = 7;
    });
    assert_eq!(keys, ["backends.connections", "hosts.app"]);
    gate.open();
    assert_eq!(caller.chunk().unwrap(), b"late");
    assert_eq!(caller.chunk(), None);
    front.ingress.get(BLOG, "/").expect(404);
    front.ingress.get("blog.apps.example", "/").expect(200);
}

#[test]
fn a_tunnel_over_a_shared_connection_outlives_its_pool() {
    let offers = Offers {
        websockets: true,
        ..Offers::default()
    };
    let backend = Http2Backend::offering(&offers, async |mut asked: Asked| {
        let mut stream = asked.begin();
        while let Some(piece) = asked.piece().await {
            stream.send_data(piece, false).unwrap();
        }
    });
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let mut websocket = ingress.caller();
    websocket.send(HANDSHAKE);
    assert_eq!(websocket.head().status(), 101);
    ingress
        .reload(|config| config.backends.connections = 7)
        .unwrap();
    websocket.send("still");
    assert_eq!(websocket.exactly(5), b"still");
}
