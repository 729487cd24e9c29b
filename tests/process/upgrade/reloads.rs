//! What reloads opened and closed, before an upgrade and after it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::HELLO;
use super::load::{Load, kept, one_by_one};
use super::service::Service;
use crate::caller::{connect, get};
use crate::process::{command, ended, run_command};

/// The embedded platform, listening at `http` and, for the operator, at `admin`.
fn config(http: &str, admin: &str) -> String {
    format!(
        "listen = {{ http = [{http}], admin = '{admin}', control = 'control' }}
         platform.store = 'store'"
    )
}

/// What a verb prints over the control socket.
#[track_caller]
fn asked(folder: &Path, verb: &str) -> Value {
    let mut command = command(&[verb, "--json", "--control"]);
    let ended = ended(command.arg(folder.join("control")));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
    serde_json::from_str(&ended.text).unwrap()
}

/// Where whoever has the name of the control socket listens.
fn listening(folder: &Path) -> (Vec<SocketAddr>, SocketAddr) {
    let status = asked(folder, "status");
    let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
    let http = status["http"].as_array().unwrap();
    (
        http.iter().map(address).collect(),
        address(&status["admin"]),
    )
}

#[track_caller]
fn serve(addresses: &[SocketAddr]) {
    for address in addresses {
        assert_eq!(get(*address, "localhost", HELLO).status, 200, "{address}");
    }
}

#[test]
fn what_reloads_opened_is_handed_over_and_what_they_closed_is_not() {
    const ANY: &str = "127.0.0.1:0";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("ingress.toml");
    let mut command = run_command(folder, &config("'127.0.0.1:0', '127.0.0.1:0'", ANY));
    let mut service = Service::start(command.env("M3O_PLATFORM_KEY", "dev"));
    let (first, admin) = listening(folder);
    let (stays, goes) = (first[0], first[1]);
    let load = Load::start(vec![
        one_by_one(stays, "localhost", HELLO),
        kept(stays, "localhost", HELLO),
    ]);

    let two = config("'127.0.0.1:0', '127.0.0.2:0'", "127.0.0.3:0");
    std::fs::write(&file, two).unwrap();
    asked(folder, "reload");
    let before = listening(folder);
    assert_eq!(before.0[0], stays);
    for gone in [goes, admin] {
        assert!(connect(gone).is_err(), "nobody waits at {gone} in vain");
    }
    service.upgrade();
    assert_eq!(listening(folder), before, "by name and address");
    let pid = i64::from(service.pid().as_raw_nonzero().get());
    assert_eq!(asked(folder, "status")["pid"], pid);
    serve(&before.0);
    assert_eq!(get(before.1, "localhost", "/readyz").status, 200);
    assert!(connect(goes).is_err());
    load.goes_on();

    let other = config("'127.0.0.1:0', '127.0.0.4:0', '127.0.0.2:0'", "127.0.0.3:0");
    std::fs::write(&file, other).unwrap();
    asked(folder, "reload");
    let after = listening(folder);
    assert_eq!([after.0[0], after.0[2]], before.0[..], "these stay");
    service.upgrade();
    assert_eq!(listening(folder), after);
    serve(&after.0);
    load.goes_on();

    std::fs::write(&file, config("'127.0.0.1:0'", ANY)).unwrap();
    asked(folder, "reload");
    for gone in [after.0[1], after.0[2], after.1] {
        assert!(connect(gone).is_err(), "no process keeps {gone} open");
    }
    load.nobody_failed();
    service.the_old_ones_end();
    service.stop();
    assert!(!folder.join("control").exists());
}
