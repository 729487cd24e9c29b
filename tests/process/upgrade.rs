//! SIGUSR2: a new process in place of the old one, and nobody notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use m3o_ingress::server::passing::{Channel, Word};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::{api, connect, get, read};
use crate::process::{CAP, Process, dev_command, ended, eventually, run_command};
use crate::server::{Server, ok};
use load::{Load, by_curl, kept, one_by_one};
use service::{Binary, Service, is_alive, pid};

mod load;
mod reloads;
pub(crate) mod service;

const HELLO: &str = "/api/helloworld/call?api_key=dev&name=A";
const APP: &str = "helloworld.app.localhost";

#[test]
fn a_binary_that_is_replaced_under_load_fails_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(&mut dev(folder.path()));
    let (http, port) = (service.ingress.http, service.ingress.https_port());
    let authority = folder.path().join("ca.crt").display().to_string();
    let over_tls = |version: &str| {
        let url = format!("https://{APP}:{port}/");
        let arguments = ["--cacert", &authority, version, &url];
        by_curl(arguments.map(str::to_owned).to_vec())
    };
    let load = Load::start(vec![
        one_by_one(http, "localhost", HELLO),
        one_by_one(http, APP, "/"),
        kept(http, "localhost", HELLO),
        kept(http, APP, "/"),
        over_tls("--http1.1"),
        over_tls("--http2"),
    ]);
    for _ in 0..3 {
        service.upgrade();
        load.goes_on();
    }
    load.nobody_failed();
    service.the_old_ones_end();
    let ready = get(service.ingress.admin, "localhost", "/readyz");
    assert_eq!(ready.status, 200, "the same admin address");
    service.stop();
}

/// `dev` with a log that can be read.
fn dev(folder: &Path) -> Command {
    let mut command = dev_command(folder);
    command.args(["--log-format", "json"]).current_dir(folder);
    command
}

/// The beginning of a request, of which the rest is still to come.
fn begun(address: SocketAddr, text: &str) -> TcpStream {
    let mut socket = connect(address).unwrap();
    socket.write_all(text.as_bytes()).unwrap();
    socket
}

#[test]
fn an_upload_and_a_websocket_stay_with_the_old_process_until_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(&mut dev(folder.path()));
    let http = service.ingress.http;
    let backend = Server::start(|arrived| ok("text/plain", &arrived.body.len().to_string()));
    let run = json!({"name": "up", "backend": backend.url()});
    api(http, "dev", "app/run", &run).fine();
    let head = "POST / HTTP/1.1\r\nHost: up.app.localhost\r\nContent-Length: 10\r\n\r\n";
    let mut upload = begun(http, &format!("{head}12345"));
    let mut websocket = websocket(http);

    service.upgrade();
    assert!(service.ingress.process.is_running(), "two are still here");
    // RFC 6455, 7.4.1: the server goes away, so its client is to come back, to the new one.
    let mut told = [0; 4];
    websocket.read_exact(&mut told).unwrap();
    assert_eq!(told, [0x88, 2, 0x03, 0xe9]);
    assert_eq!(get(http, "localhost", HELLO).status, 200);
    upload.write_all(b"67890").unwrap();
    let answer = read(upload).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "10"));
    assert_eq!(answer.field("connection"), Some("close"));
    websocket
        .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9])
        .unwrap();
    assert_eq!(websocket.read(&mut told).unwrap(), 0, "and that was all");
    service.the_old_ones_end();
    service.stop();
}

/// A WebSocket to a stream of the platform.
fn websocket(http: SocketAddr) -> TcpStream {
    let handshake = "GET /v1/helloworld/Stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer dev\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut websocket = begun(http, handshake);
    assert!(next(&mut websocket).starts_with("HTTP/1.1 101"));
    websocket
}

/// What has arrived when anything has.
fn next(socket: &mut TcpStream) -> String {
    let mut buffer = [0; 4096];
    let length = socket.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A short text as a client sends it (RFC 6455, 5.2), under a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let head = [0x81, 0x80 | length, 0, 0, 0, 0];
    [&head, text.as_bytes()].concat()
}

/// A configuration in front of a remote API.
fn remote(api: &Server, workers: usize) -> String {
    format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0', workers = {workers} }}
         api.address = '{}'
         backends.allow_private = true",
        api.url()
    )
}

#[test]
fn a_new_number_of_workers_loses_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Server::start(|_| ok("text/plain", "an app"));
    let url = json!({"url": backend.url()}).to_string();
    let api = Server::start(move |_| ok("application/json", &url));
    let mut command = run_command(folder.path(), &remote(&api, 2));
    let mut service = Service::start(command.env("M3O_API_TOKEN", "token"));
    let http = service.ingress.http;
    let load = Load::start(vec![
        one_by_one(http, "a.m3o.app", "/"),
        one_by_one(http, "b.m3o.app", "/"),
        kept(http, "c.m3o.app", "/"),
    ]);
    for workers in [1, 3, 2] {
        let file = folder.path().join("ingress.toml");
        std::fs::write(file, remote(&api, workers)).unwrap();
        service.upgrade();
        assert_eq!(service.serving()["workers"], workers);
        assert_eq!(service.serving()["addresses"], json!([http]));
        load.goes_on();
    }
    load.nobody_failed();
    service.the_old_ones_end();
    service.stop();
}

#[test]
fn a_listener_may_come_and_another_go() {
    let folder = tempfile::tempdir().unwrap();
    let config = |addresses: &str| {
        format!(
            "listen = {{ http = [{addresses}], admin = '127.0.0.1:0' }}
             platform.store = 'store'"
        )
    };
    let mut command = run_command(folder.path(), &config("'127.0.0.1:0', '127.0.0.1:0'"));
    let mut service = Service::start(command.env("M3O_PLATFORM_KEY", "dev"));
    let serving = service.serving();
    let address = |serving: &Value, index: usize| -> SocketAddr {
        serving["addresses"][index]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let (stays, goes) = (address(&serving, 0), address(&serving, 1));
    let load = Load::start(vec![one_by_one(stays, "localhost", HELLO)]);
    let file = folder.path().join("ingress.toml");
    std::fs::write(file, config(&format!("'{stays}', '127.0.0.2:0'"))).unwrap();
    let mut open = begun(goes, &format!("GET {HELLO} HTTP/1.1\r\n"));
    service.upgrade();
    let comes = address(&service.serving(), 1);
    assert_eq!(address(&service.serving(), 0), stays);
    assert_eq!(get(comes, "localhost", HELLO).status, 200);
    open.write_all(b"Host: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    // The store is with the new process already.
    let status = read(open).unwrap().status;
    assert!([200, 503].contains(&status), "{status}");
    eventually("nobody listens there", || connect(goes).err());
    load.goes_on();
    load.nobody_failed();
    service.the_old_ones_end();
    service.stop();
}

/// The embedded platform, with a short limit.
fn local(folder: &Path, more: &str) {
    let config = format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
         backends.allow_private = true
         {more}"
    );
    std::fs::write(folder.join("ingress.toml"), config).unwrap();
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_as_it_was() {
    const GOOD: &str = "platform.store = 'store'\ntimeouts.upgrade = '2s'";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let binary = Binary::link(folder);
    local(folder, GOOD);
    let mut command = binary.run(&folder.join("ingress.toml"));
    let mut service = Service::start(command.env("M3O_PLATFORM_KEY", "dev"));
    let http = service.ingress.http;
    let load = Load::start(vec![
        one_by_one(http, "localhost", HELLO),
        kept(http, "localhost", HELLO),
    ]);
    let mut websocket = websocket(http);
    let fails = |why: &[&str]| {
        let said = service.fails_to_upgrade();
        for word in why {
            assert!(said.contains(word), "{word} in {said}");
        }
        let link = json!({"destinationURL": "https://example.com/"});
        api(http, "dev", "url/Shorten", &link).fine();
        load.goes_on();
    };

    local(
        folder,
        "platform.store = 'store'\ntimeouts.upgrade = 'soon'",
    );
    fails(&["timeouts.upgrade", "ingress.toml:4"]);
    local(folder, "platform.store = '/proc/self/store'");
    fails(&["the new process says", "platform.store", "/proc/self/store"]);
    local(folder, GOOD);

    let no_program = folder.join("no-program");
    std::fs::write(&no_program, "no program").unwrap();
    binary.leads_to(&no_program);
    fails(&["cannot be started", "m3o-ingress"]);
    binary.leads_to(&script(folder, "exit 7"));
    fails(&["ended before it was ready", "exit status: 7"]);
    script(folder, "exec sleep 600");
    fails(&["not ready after 2s", "timeouts.upgrade"]);
    let started = service.wrote("whom it started", |text| {
        pid(text.lines().rfind(|line| line.contains("was started"))?)
    });
    let left = std::fs::exists(format!("/proc/{started}")).unwrap();
    assert!(!left && !is_alive(started), "no zombie is left");

    // Whatever was begun and taken back, a WebSocket has heard nothing of it.
    websocket
        .write_all(&masked(r#"{"name":"A","messages":"1"}"#))
        .unwrap();
    assert!(next(&mut websocket).contains("Hello A"));
    drop(websocket);
    binary.leads_to(Path::new(env!("CARGO_BIN_EXE_m3o-ingress")));
    service.upgrade();
    load.goes_on();
    load.nobody_failed();
    service.the_old_ones_end();
    service.stop();
}

#[test]
fn a_hand_over_that_breaks_is_no_mistake_of_the_environment_and_both_sides_hear_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let mut command = run_command(folder.path(), "platform.store = 'store'");
    command
        .env("M3O_PLATFORM_KEY", "dev")
        .env("M3O_UPGRADE_FROM", std::process::id().to_string())
        .stdin(Stdio::from(theirs));
    // Sockets come first.
    ours.say(&Word::Yours).unwrap();
    let ended = ended(&mut command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text);
    let why = "the process before this one does not hand over: it says";
    assert!(ended.text.contains(why), "{}", ended.text);
    assert!(!ended.text.contains("unset it"), "{}", ended.text);
    let said = ours.hear().unwrap();
    assert!(matches!(said, Some(Word::Failed { .. })), "{said:?}");
}

#[test]
fn signals_that_end_nothing_do_not_end_a_process_that_still_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let config = "listen.http = '127.0.0.1:0'\nplatform.store = 'store'";
    let mut command = run_command(folder.path(), config);
    command
        .env("M3O_PLATFORM_KEY", "dev")
        .env("M3O_UPGRADE_FROM", std::process::id().to_string())
        .stdin(Stdio::from(theirs));
    ours.set_patience(CAP).unwrap();
    let process = Process::spawn(&mut command);
    ours.say(&Word::Complete).unwrap();
    assert_eq!(ours.hear().unwrap(), Some(Word::LetGo));
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        process.signal(signal);
    }
    ours.say(&Word::Yours).unwrap();
    let said = ours.hear().unwrap();
    assert!(matches!(said, Some(Word::Ready { .. })), "{said:?}");
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
}

#[test]
fn a_reload_waits_until_an_upgrade_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let binary = Binary::link(folder);
    local(folder, "platform.store = 'store'\ntimeouts.upgrade = '2s'");
    let mut command = binary.run(&folder.join("ingress.toml"));
    let service = Service::start(command.env("M3O_PLATFORM_KEY", "dev"));
    binary.leads_to(&script(folder, "exec sleep 600"));
    service.ask();
    service.wrote("that one is under way", |text| {
        text.contains("was started").then_some(())
    });
    local(folder, "platform.store = 'store'\nindex.enabled = true");
    service.signal(Signal::HUP);
    service.wrote("that it is reloaded, after the upgrade", |text| {
        let reloaded = text.find("the configuration was reloaded")?;
        let failed = text.find("the upgrade has failed").unwrap();
        assert!(failed < reloaded, "{text}");
        Some(())
    });
    assert_eq!(get(service.ingress.http, "m3o.app", "/").status, 200);
    service.stop();
}

/// A program of its own, which does this.
fn script(folder: &Path, text: &str) -> std::path::PathBuf {
    let script = folder.join("script");
    std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn one_upgrade_is_made_at_a_time_and_a_stop_gives_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let binary = Binary::link(folder);
    local(folder, "platform.store = 'store'\ntimeouts.upgrade = '10m'");
    let mut command = binary.run(&folder.join("ingress.toml"));
    let service = Service::start(command.env("M3O_PLATFORM_KEY", "dev"));
    binary.leads_to(&script(folder, "exec sleep 600"));
    service.ask();
    let started = service.wrote("whom it started", |text| {
        pid(text.lines().find(|line| line.contains("was started"))?)
    });
    service.ask();
    service.wrote("that one is under way", |text| {
        text.contains("an upgrade is under way").then_some(())
    });
    service.signal(Signal::TERM);
    eventually("the new one is gone", || (!is_alive(started)).then_some(()));
    let ended = service.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
    assert!(ended.text.contains("told to stop"), "{}", ended.text);
}

#[test]
fn what_the_store_has_before_is_there_after_and_what_is_written_after_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(&mut dev(folder.path()));
    let http = service.ingress.http;
    let backend = Server::start(|_| ok("text/plain", "an app"));
    let run = json!({"name": "before", "backend": backend.url()});
    api(http, "dev", "app/run", &run).fine();
    let link = json!({"id": "hit", "destinationURL": "https://example.com/"});
    api(http, "dev", "url/Create", &link).fine();
    for round in 0..2 {
        for _ in 0..5 {
            assert_eq!(get(http, "localhost", "/u/hit").status, 302);
        }
        service.upgrade();
        assert_eq!(get(http, "before.app.localhost", "/").body, "an app");
        let name = format!("after-{round}");
        let run = json!({"name": name, "backend": backend.url()});
        api(http, "dev", "app/run", &run).fine();
    }
    let listed = api(http, "dev", "url/List", &json!({})).fine();
    assert_eq!(listed["urlPairs"][0]["hitCount"], "10");
    service.the_old_ones_end();
    service.kill();
    let again = Service::start(&mut dev(folder.path()));
    let http = again.ingress.http;
    for host in [
        "before.app.localhost",
        "after-0.app.localhost",
        "after-1.app.localhost",
    ] {
        assert_eq!(get(http, host, "/").body, "an app", "{host}");
    }
    let listed = api(http, "dev", "url/List", &json!({})).fine();
    assert_eq!(listed["urlPairs"][0]["hitCount"], "10");
}
