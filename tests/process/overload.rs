//! Out of descriptors, and out of time: what the process still does, and that it recovers by itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::json;
use tokio::time::Instant;

use crate::caller::{self, Answer, api, get, request};
use crate::process::{Ingress, eventually, run_command};
use crate::server::{Server, ok};

const FAST: &str = "fast.m3o.app";
const SLOW: &str = "slow.m3o.app";
const CHAT: &str = "chat.m3o.app";

/// The embedded platform on any ports, on one worker.
const CONFIG: &str = "
    listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', workers = 1 }
    backends = { allow_private = true }
    platform.store = 'store'
";

fn command(folder: &Path) -> Command {
    let mut command = run_command(folder, CONFIG);
    command.env("M3O_PLATFORM_KEY", "key");
    command
}

/// Runs an app that answers, and one that takes every request and never does.
fn run_apps(ingress: &Ingress) {
    let fast = Server::start(|_| ok("text/plain", "here"));
    let slow = Server::start(|_| {
        loop {
            std::thread::park();
        }
    });
    for (name, server) in [("fast", fast), ("slow", slow)] {
        let app = json!({"name": name, "backend": server.url()});
        api(ingress.http, "key", "app/Run", &app).fine();
    }
}

/// Runs an app that answers, and agrees to every tunnel.
fn run_chat(ingress: &Ingress) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut tunnels = Vec::new();
        for mut socket in listener.incoming().map_while(Result::ok) {
            let head = some(&mut socket);
            if head.to_ascii_lowercase().contains("upgrade: chat") {
                socket.write_all(SWITCHED.as_bytes()).unwrap();
                tunnels.push(socket);
            } else {
                let _gone = socket.write_all(ok("text/plain", "here").as_bytes());
            }
        }
    });
    let app = json!({"name": "chat", "backend": backend});
    api(ingress.http, "key", "app/Run", &app).fine();
}

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

/// A tunnel to that app.
fn tunnel(ingress: &Ingress) -> TcpStream {
    let mut socket = caller::connect(ingress.http).unwrap();
    let fields = "Connection: Upgrade\r\nUpgrade: chat";
    let text = format!("GET / HTTP/1.1\r\nHost: {CHAT}\r\n{fields}\r\n\r\n");
    socket.write_all(text.as_bytes()).unwrap();
    assert!(some(&mut socket).starts_with("HTTP/1.1 101 "));
    socket
}

/// What there is to read of a short head.
fn some(socket: &mut TcpStream) -> String {
    let mut buffer = [0; 4096];
    let count = socket.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

/// As many files as the process has open.
fn open_files(pid: Pid) -> u64 {
    let files = format!("/proc/{}/fd", pid.as_raw_nonzero());
    std::fs::read_dir(files).unwrap().count() as u64
}

fn limit_files(pid: Pid, current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
}

/// The time that all threads of the process were on a core.
fn time_on_cpu(pid: Pid) -> Duration {
    let threads = format!("/proc/{}/task", pid.as_raw_nonzero());
    let nanoseconds = std::fs::read_dir(threads).unwrap().map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        let first = text.split_whitespace().next().unwrap();
        first.parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn pass(time: Duration) {
    let began = Instant::now();
    eventually("time passes", || (began.elapsed() >= time).then_some(()));
}

/// What the process does in a second is next to nothing.
#[track_caller]
fn check_idles(pid: Pid) {
    let before = time_on_cpu(pid);
    pass(Duration::from_secs(1));
    let spent = time_on_cpu(pid) - before;
    assert!(spent < Duration::from_millis(100), "it spins: {spent:?}");
}

#[track_caller]
fn check_turned_away(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    assert!(answer.body.contains("too many connections"), "{answer:?}");
}

#[track_caller]
fn check_healthy(ingress: &Ingress) {
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(ingress.admin, "localhost", path).status, 200, "{path}");
    }
}

#[track_caller]
fn metric(ingress: &Ingress, series: &str) -> f64 {
    let text = get(ingress.admin, "localhost", "/metrics").body;
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("{series} is not in\n{text}"))
        .parse()
        .unwrap()
}

const SHED: &str = r#"m3o_ingress_shed_total{reason="descriptors"}"#;

fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| caller::connect(address).unwrap())
        .collect()
}

#[track_caller]
fn check_serves_again(ingress: &Ingress) {
    eventually("it serves again", || {
        let text = request("GET", FAST, "/", &[], "");
        let answer = caller::send(ingress.http, text.as_bytes()).ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn strangers_are_turned_away_before_the_last_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::start(&mut command(folder.path()));
    run_apps(&ingress);
    let pid = ingress.process.pid();
    limit_files(pid, open_files(pid) + 60);

    let mut held = idle(ingress.http, 300);
    check_turned_away(&caller::read(held.pop().unwrap()).unwrap());
    check_healthy(&ingress);
    assert!(metric(&ingress, SHED) > 200.0);
    check_turned_away(&get(ingress.http, FAST, "/"));
    check_idles(pid);

    // Who is in is served: a backend still has a descriptor.
    let text = request("GET", FAST, "/", &[], "");
    let first = held.remove(0);
    (&first).write_all(text.as_bytes()).unwrap();
    assert_eq!(caller::read(first).unwrap().status, 200);

    drop(held);
    check_serves_again(&ingress);
    check_healthy(&ingress);
    ingress.stop();
}

#[test]
fn without_a_descriptor_left_it_answers_does_not_spin_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::start(&mut command(folder.path()));
    run_apps(&ingress);
    assert_eq!(get(ingress.http, FAST, "/").status, 200);
    let pid = ingress.process.pid();
    limit_files(pid, open_files(pid) + 50);

    // Each of these takes one, and then one more for its backend, until there is none.
    let mut held = idle(ingress.http, 30);
    let text = request("GET", SLOW, "/", &[], "");
    for socket in &mut held {
        socket.write_all(text.as_bytes()).unwrap();
    }
    let refused = eventually("a backend cannot be dialled", || {
        held.iter().find_map(peeked)
    });
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nretry-after: ") || refused.contains("\r\nRetry-After: "));
    assert!(refused.contains("too many connections"), "{refused}");

    // Those that were turned away may have left a descriptor or two behind.
    let more = idle(ingress.http, 60);
    let refused = eventually("nearly all others are told", || {
        let refused: Vec<_> = more.iter().filter_map(peeked).collect();
        (refused.len() >= 50).then_some(refused)
    });
    for answer in refused {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    check_healthy(&ingress);
    assert!(metric(&ingress, SHED) >= 50.0);
    check_idles(pid);
    let warnings = ingress.process.text().matches("cannot accept").count();
    assert!((1..=2).contains(&warnings), "{warnings} warnings");

    drop((held, more));
    check_serves_again(&ingress);
    ingress.stop();
}

/// What has arrived on a connection, if anything; it can be read again.
fn peeked(socket: &TcpStream) -> Option<String> {
    let mut buffer = [0; 4096];
    socket.set_nonblocking(true).unwrap();
    let count = socket.peek(&mut buffer);
    socket.set_nonblocking(false).unwrap();
    match count {
        Ok(count @ 1..) => Some(String::from_utf8_lossy(&buffer[..count]).into_owned()),
        Ok(0) | Err(_) => None,
    }
}

#[test]
fn where_not_even_the_reserve_helps_it_waits_quietly_until_there_are_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::start(&mut command(folder.path()));
    run_apps(&ingress);
    let pid = ingress.process.pid();
    limit_files(pid, 5);
    let waiting = idle(ingress.http, 20);
    check_idles(pid);
    limit_files(pid, 1000);
    drop(waiting);
    check_serves_again(&ingress);
    check_healthy(&ingress);
    ingress.stop();
}

#[test]
fn a_process_with_few_descriptors_serves_and_turns_away_what_is_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let binary = command(folder.path());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(binary.get_program())
        .args(binary.get_args())
        .current_dir(folder.path())
        .env_clear()
        .env("M3O_PLATFORM_KEY", "key");
    let ingress = Ingress::start(&mut command);
    run_apps(&ingress);
    let mut held = idle(ingress.http, 200);
    check_turned_away(&caller::read(held.pop().unwrap()).unwrap());
    check_healthy(&ingress);
    check_idles(ingress.process.pid());
    drop(held);
    check_serves_again(&ingress);
    ingress.stop();
}

#[test]
fn a_worker_that_cannot_keep_up_sheds_the_busiest_app_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::start(&mut command(folder.path()));
    run_apps(&ingress);
    run_chat(&ingress);
    // An app with many idle tunnels makes no work, so it is not a busy one.
    let _tunnels: Vec<_> = (0..40).map(|_| tunnel(&ingress)).collect();
    let text = request("GET", SLOW, "/", &[], "");
    let busy = idle(ingress.http, 20);
    for mut socket in &busy {
        socket.write_all(text.as_bytes()).unwrap();
    }
    let active = |ingress: &Ingress| metric(ingress, "http_server_active_requests");
    eventually("all are in flight", || {
        (active(&ingress) == 20.0).then_some(())
    });

    // A machine with too much to do leaves the process no time; here it is taken on purpose.
    for _ in 0..10 {
        ingress.process.signal(Signal::STOP);
        pass(Duration::from_millis(400));
        ingress.process.signal(Signal::CONT);
        pass(Duration::from_millis(30));
    }
    let refused = get(ingress.http, SLOW, "/");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.field("retry-after").is_some());
    assert_eq!(get(ingress.http, FAST, "/").status, 200);
    assert_eq!(get(ingress.http, CHAT, "/").status, 200);
    check_healthy(&ingress);
    let shed = metric(&ingress, r#"m3o_ingress_shed_total{reason="overload"}"#);
    assert!(shed >= 1.0);

    eventually("it keeps up again", || {
        (metric(&ingress, "m3o_ingress_overloaded_workers") == 0.0).then_some(())
    });
    let mut next = caller::connect(ingress.http).unwrap();
    next.write_all(text.as_bytes()).unwrap();
    eventually("the app is served again", || {
        (active(&ingress) == 21.0).then_some(())
    });
    drop(busy);
}
