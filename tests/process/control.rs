//! The control socket of the built binary, and the verbs that ask over it.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;
use serde_json::json;

use crate::caller::api;
use crate::process::{Ended, Ingress, command, dev_command, ended, run_command};
use crate::server::{Server, ok};

/// Asks the ingress whose folder this is.
#[track_caller]
fn asked(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = command(arguments);
    ended(command.arg("--control").arg(folder.join("control.sock")))
}

/// What it prints where all goes well.
#[track_caller]
fn said(folder: &Path, arguments: &[&str]) -> String {
    let ended = asked(folder, arguments);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
    ended.text
}

/// The status, the field Retry-After and the page that curl gets at `host`.
#[track_caller]
fn curl(ingress: &Ingress, host: &str) -> (String, String, String) {
    let output = Command::new("curl")
        .args(["--silent", "--header", "Accept: text/html"])
        .args(["--write-out", "\n%{http_code}\n%header{retry-after}"])
        .arg("--resolve")
        .arg(format!("{host}:{}:127.0.0.1", ingress.http.port()))
        .arg(format!("http://{host}:{}/", ingress.http.port()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.rsplitn(3, '\n');
    let mut part = || parts.next().unwrap().to_owned();
    let (after, status) = (part(), part());
    (status, after, part())
}

#[test]
fn status_and_health_tell_a_running_ingress_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let none = asked(folder.path(), &["status"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(none.text.contains("nothing listens at"), "{}", none.text);
    assert_eq!(asked(folder.path(), &["health"]).status.code(), Some(1));

    let ingress = Ingress::dev(folder.path());
    let table = said(folder.path(), &["status"]);
    assert!(
        table.contains(&format!("http         {}\n", ingress.http)),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&said(folder.path(), &["status", "--json"])).unwrap();
    assert_eq!(json["ready"], true);
    assert_eq!(json["pid"], ingress.process.pid().as_raw_nonzero().get());
    assert_eq!(said(folder.path(), &["health"]), "ok\n");
    ingress.stop();
    assert!(!folder.path().join("control.sock").exists());
}

#[test]
fn the_socket_is_found_by_the_configuration_also_by_one_with_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', control = 'run/control.sock' }
        platform.store = 'store'
    ";
    let ingress = Ingress::start(run_command(folder.path(), config).env("M3O_PLATFORM_KEY", "key"));
    let socket = folder.path().join("run/control.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    let health = || {
        let mut command = command(&["health", "--config", "ingress.toml"]);
        ended(command.current_dir(folder.path()))
    };
    assert_eq!(health().status.code(), Some(0));
    let file = folder.path().join("ingress.toml");
    std::fs::write(&file, format!("{config}\nlimits.body = 'much'")).unwrap();
    assert_eq!(health().status.code(), Some(0), "{}", health().text);
    // The admin address is asked where there is no socket, or another one since the start.
    let admin = format!("listen.admin = '{}'", ingress.admin);
    for control in ["", "listen.control = 'another'"] {
        std::fs::write(&file, format!("{admin}\n{control}")).unwrap();
        assert_eq!(health().status.code(), Some(0), "{}", health().text);
    }
    std::fs::write(&file, "").unwrap();
    let nowhere = health();
    assert_eq!(nowhere.status.code(), Some(1), "2 is not for a container");
    assert!(
        nowhere.text.contains("listen.control: it is not set"),
        "{}",
        nowhere.text
    );
    let address = ingress.admin.to_string();
    ingress.stop();
    std::fs::write(&file, admin).unwrap();
    let gone = health();
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.text.contains(&address), "{}", gone.text);
}

#[test]
fn a_start_after_a_crash_takes_the_name_over() {
    let folder = tempfile::tempdir().unwrap();
    Ingress::dev(folder.path()).kill();
    assert!(
        folder.path().join("control.sock").exists(),
        "it is left behind"
    );
    assert_eq!(asked(folder.path(), &["health"]).status.code(), Some(1));
    let ingress = Ingress::dev(folder.path());
    said(folder.path(), &["health"]);
    ingress.stop();
}

#[test]
fn a_socket_that_cannot_be_is_told_with_its_key_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |control: &str| {
        let config = format!(
            "listen = {{ http = '127.0.0.1:0', control = '{control}' }}\nplatform.store = 'store'"
        );
        let mut command = run_command(folder.path(), &config);
        let ended = ended(command.env("M3O_PLATFORM_KEY", "key"));
        (ended.status.code(), ended.text)
    };
    let (code, text) = refused(&"x".repeat(108));
    assert_eq!(code, Some(2));
    assert!(
        text.contains("listen.control: `xxx") && text.contains("107 bytes"),
        "{text}"
    );
    std::fs::write(folder.path().join("letter"), "to Alice").unwrap();
    let (code, text) = refused("letter");
    assert_eq!(code, Some(1));
    assert!(
        text.contains("listen.control: `letter` is there and is no socket"),
        "{text}"
    );
    let (_, text) = refused("letter/control");
    assert!(
        text.contains("listen.control: the folder of `letter/control`"),
        "{text}"
    );
    // Nobody may write here but root, whom the bits do not hold.
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    if !geteuid().is_root() {
        let (code, text) = refused("closed/control");
        assert_eq!(code, Some(1));
        let reason = "listen.control: cannot listen on `closed/control`: Permission denied";
        assert!(text.contains(reason), "{text}");
    }
    let (_, text) = refused("/proc/control");
    assert!(
        text.contains("listen.control: cannot listen on `/proc/control`"),
        "{text}"
    );
}

#[test]
fn an_app_is_paused_maintained_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let backend = Server::start(|_| ok("text/plain", "hello"));
    let run = json!({ "name": "blog", "backend": backend.url() });
    api(ingress.http, "dev", "app/Run", &run).fine();
    let host = "blog.m3o.app";
    assert_eq!(curl(&ingress, host).0, "200");

    assert_eq!(
        said(folder.path(), &["app", "pause", "blog"]),
        "blog: paused\n"
    );
    let (status, after, page) = curl(&ingress, host);
    assert_eq!((&*status, &*after), ("503", "300"));
    assert!(page.contains("this app is paused"), "{page}");
    let listed = said(folder.path(), &["app", "list"]);
    let row = listed
        .lines()
        .find(|line| line.starts_with("blog "))
        .unwrap();
    assert!(row.contains("paused"), "{listed}");

    let words = [
        "app",
        "maintenance",
        "blog",
        "--message",
        "Back at noon.",
        "--retry-after",
        "10m",
    ];
    assert_eq!(said(folder.path(), &words), "blog: maintenance\n");
    // It outlives the process.
    ingress.kill();
    let ingress = Ingress::start(&mut dev_command(folder.path()));
    let (status, after, page) = curl(&ingress, host);
    assert_eq!((&*status, &*after), ("503", "600"));
    assert!(page.contains("Back at noon."), "{page}");
    let json = said(folder.path(), &["app", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["name"], "blog");
    assert_eq!(json[0]["status"], "maintenance");

    assert_eq!(
        said(folder.path(), &["app", "resume", "blog"]),
        "blog: running\n"
    );
    assert_eq!(curl(&ingress, host).0, "200");
    let who = format!("app blog: running, asked by user {}", geteuid().as_raw());
    let line = |text: &str| text.contains(&who).then_some(());
    ingress.process.wrote("who did it", line);
    said(folder.path(), &["fn", "pause", "helloworld"]);
    assert_eq!(curl(&ingress, "helloworld.m3o.sh").0, "503");
    let missing = asked(folder.path(), &["app", "pause", "nobody"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        missing.text.contains("there is no such app"),
        "{}",
        missing.text
    );
    let odd = asked(folder.path(), &["app", "pause", "../status"]);
    assert_eq!(odd.status.code(), Some(2), "{}", odd.text);
    ingress.stop();
}

#[test]
fn a_url_is_explained_by_the_file_alone_or_by_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', control = 'control.sock' }
        backends.allow_private = true
        platform.store = 'store'
    ";
    let mut command = run_command(folder.path(), config);
    let url = "http://blog.m3o.app/a?api_key=canary";
    let explain = |more: &[&str]| {
        let mut command = crate::process::command(&["explain", "-c", "ingress.toml", url]);
        ended(command.args(more).current_dir(folder.path()))
    };
    let alone = explain(&[]);
    assert_eq!(alone.status.code(), Some(0), "{}", alone.text);
    let first =
        "by ingress.toml alone: nobody was asked\nGET http://blog.m3o.app/a?api_key=[hidden]\n";
    assert!(alone.text.starts_with(first), "{}", alone.text);
    let would = "would ask POST /v1/app/Resolve of store store";
    assert!(alone.text.contains(would), "{}", alone.text);
    assert!(!folder.path().join("store").exists(), "nothing is made");
    let none = explain(&["--running"]);
    assert_eq!(none.status.code(), Some(1));
    let tried = folder.path().join("control.sock");
    for words in [
        format!("nothing listens at {}", tried.display()),
        "`control.sock` is relative to this folder".to_owned(),
    ] {
        assert!(none.text.contains(&words), "{}", none.text);
    }

    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY", "key"));
    let backend = Server::start(|_| ok("text/plain", "hello"));
    let run = json!({ "name": "blog", "backend": format!("{}/canary", backend.url()) });
    api(ingress.http, "key", "app/Run", &run).fine();
    let asked = explain(&[]);
    assert_eq!(asked.status.code(), Some(0), "{}", asked.text);
    let first = "asked of the ingress that runs at control.sock\n";
    assert!(asked.text.starts_with(first), "{}", asked.text);
    for line in [
        "127.0.0.1: permitted",
        "/[hidden]",
        "limits.per_workload = 512",
    ] {
        assert!(asked.text.contains(line), "{line} in {}", asked.text);
    }
    assert!(!asked.text.contains("canary"), "{}", asked.text);
    assert!(
        explain(&["--offline"])
            .text
            .starts_with("by ingress.toml alone")
    );
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json"]).text).unwrap();
    assert_eq!(json["answer"]["text"], "what the app answers, streamed");
    let wrong = ended(
        crate::process::command(&["explain", "ftp://x"])
            .args(["--control", "control.sock"])
            .current_dir(folder.path()),
    );
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.text);
    ingress.stop();

    // The store of an ingress that does not run is read, and left as it is.
    let store = folder.path().join("store");
    let before = std::fs::read(&store).unwrap();
    let down = explain(&[]);
    for line in [
        "by ingress.toml alone",
        "asks POST /v1/app/Resolve",
        "127.0.0.1: permitted",
    ] {
        assert!(down.text.contains(line), "{line} in {}", down.text);
    }
    assert!(!down.text.contains("canary"), "{}", down.text);
    assert_eq!(std::fs::read(&store).unwrap(), before);
}

#[test]
fn a_backup_that_is_made_in_use_is_a_store_to_start_with() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Server::start(|_| ok("text/plain", "from the backend"));
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("platform.redb");
    let ingress = Ingress::dev(folder.path());
    let app = json!({ "name": "blog", "backend": backend.url() });
    api(ingress.http, "dev", "app/Run", &app).fine();
    let copied = said(folder.path(), &["backup", copy.to_str().unwrap()]);
    assert!(copied.ends_with(" records\n"), "{copied}");
    let later = json!({ "name": "later", "backend": backend.url() });
    api(ingress.http, "dev", "app/Run", &later).fine();
    let again = asked(folder.path(), &["backup", copy.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "nothing is replaced");
    assert!(again.text.contains("is there already"), "{}", again.text);
    ingress.stop();
    let ingress = Ingress::dev(copies.path());
    let (status, _, page) = curl(&ingress, "blog.m3o.app");
    assert_eq!((&*status, &*page), ("200", "from the backend"));
    assert_eq!(curl(&ingress, "later.m3o.app").0, "404");
    ingress.stop();
}

#[test]
fn a_backup_that_is_not_to_be_seen_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    // As one does that sees another file system.
    let elsewhere = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        let answer = ok("application/json", r#"{"records": 3}"#);
        socket.write_all(answer.as_bytes()).unwrap();
    });
    let copy = folder.path().join("copy");
    let told = asked(folder.path(), &["backup", copy.to_str().unwrap()]);
    elsewhere.join().unwrap();
    assert_eq!(told.status.code(), Some(1), "{}", told.text);
    assert!(told.text.contains("/var/lib/m3o-ingress"), "{}", told.text);
}

#[test]
fn a_reload_is_told_and_explained_by_or_refused_with_every_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingress.toml");
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', control = 'control.sock' }
        platform.store = 'memory'
    ";
    let mut command = run_command(folder.path(), config);
    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY", "key"));
    let socket = |arguments: &[&str]| asked(folder.path(), arguments);
    let uri = "limits.uri = 16KiB";
    let url = "http://blog.m3o.app/";
    assert!(socket(&["explain", url]).text.contains(uri));

    std::fs::write(&file, format!("{config}\nlimits.uri = '8KiB'")).unwrap();
    let told = socket(&["reload"]);
    assert_eq!(told.status.code(), Some(0), "{}", told.text);
    let change = "changed:\n  limits.uri: ";
    assert!(told.text.contains(change), "{}", told.text);
    assert!(!socket(&["explain", url]).text.contains(uri));

    std::fs::write(
        &file,
        format!("{config}\nlimits.uri = 'much'\ntimeouts.body = 'soon'"),
    )
    .unwrap();
    let refused = socket(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text);
    for key in ["limits.uri: `much`", "timeouts.body: `soon`"] {
        assert!(refused.text.contains(key), "{}", refused.text);
    }
    ingress.stop();
}
