//! Signals: the first one drains, the second one stops at once.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;

use crate::caller::{api, connect, get, read, request};
use crate::process::{CAP, Ingress, eventually, run_command};
use crate::server::{Server, ok};

/// An app whose backend answers when it is told to.
struct SlowApp {
    _server: Server,
    arrived: Receiver<()>,
    answer: Sender<()>,
}

impl SlowApp {
    fn register(http: SocketAddr) -> Self {
        let (note, arrived) = channel();
        let (answer, told) = channel::<()>();
        let told = Mutex::new(told);
        let server = Server::start(move |_| {
            note.send(()).unwrap();
            let _told = told.lock().unwrap().recv();
            ok("text/plain", "at last")
        });
        let run = json!({"name": "slow", "backend": server.url()});
        api(http, "dev", "app/run", &run).fine();
        Self {
            _server: server,
            arrived,
            answer,
        }
    }

    /// A request that has reached the backend, and waits for its answer.
    fn request(&self, http: SocketAddr) -> TcpStream {
        let mut socket = connect(http).unwrap();
        let text = request("GET", "slow.app.localhost", "/", &[], "");
        socket.write_all(text.as_bytes()).unwrap();
        self.arrived.recv_timeout(CAP).unwrap();
        socket
    }
}

fn check_drain(signal: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let app = SlowApp::register(ingress.http);
    let waiting = app.request(ingress.http);
    ingress.process.signal(signal);
    eventually("no new connections", || connect(ingress.http).err());
    app.answer.send(()).unwrap();
    assert_eq!(read(waiting).unwrap().body, "at last");
    let ended = ingress.process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
    assert!(ended.text.contains("stopped"), "the log is whole");
}

#[test]
fn sigterm_lets_a_request_in_flight_finish() {
    check_drain(Signal::TERM);
}

#[test]
fn sigint_lets_a_request_in_flight_finish() {
    check_drain(Signal::INT);
}

#[test]
fn sigquit_lets_a_request_in_flight_finish() {
    check_drain(Signal::QUIT);
}

#[test]
fn a_second_signal_does_not_wait_for_what_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than the test waits for the end.
    let ingress = start(folder.path(), "drain = '10m'");
    let app = SlowApp::register(ingress.http);
    let waiting = app.request(ingress.http);
    ingress.process.signal(Signal::TERM);
    eventually("no new connections", || connect(ingress.http).err());
    ingress.process.signal(Signal::TERM);
    let ended = ingress.process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
    assert!(read(waiting).map_or(0, |answer| answer.status) != 200);
}

#[test]
fn a_file_that_is_never_read_to_its_end_does_not_hold_the_end_up() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "drain = '1s'");
    let file = folder.path().join("ingress.toml");
    std::fs::remove_file(&file).unwrap();
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    ingress.process.signal(Signal::HUP);
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut pipe = OpenOptions::new();
    pipe.write(true).custom_flags(flags);
    let _silent = eventually("it is read", || pipe.open(&file).ok());
    ingress.process.signal(Signal::TERM);
    let ended = ingress.process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
}

#[test]
fn before_the_drain_it_is_not_ready_but_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let mut ingress = start(folder.path(), "drain_delay = '10m'");
    assert_eq!(get(ingress.admin, "localhost", "/readyz").status, 200);
    ingress.process.signal(Signal::TERM);
    eventually("not ready", || {
        let ready = get(ingress.admin, "localhost", "/readyz");
        (ready.status == 503).then_some(())
    });
    assert_eq!(get(ingress.admin, "localhost", "/livez").status, 200);
    let hello = get(
        ingress.http,
        "localhost",
        "/api/helloworld/call?api_key=dev",
    );
    assert_eq!(hello.status, 200);
    assert!(ingress.process.is_running());
    ingress.process.signal(Signal::INT);
    assert_eq!(ingress.process.end().status.code(), Some(0));
}

#[test]
fn the_delay_before_the_drain_ends_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "drain_delay = '100ms'");
    ingress.stop();
}

/// The embedded platform behind names that `dev` has, with `timeouts`.
fn start(folder: &Path, timeouts: &str) -> Ingress {
    let config = format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
         platform = {{ store = 'store', public = 'http' }}
         hosts = {{ app = 'app.localhost' }}
         backends = {{ allow_private = true }}
         [timeouts]
         {timeouts}"
    );
    Ingress::start(run_command(folder, &config).env("M3O_PLATFORM_KEY", "dev"))
}
