//! Every status that the program answers with by itself, to requests that are full of secrets.

use super::{Planted, finish, register_backends};
use crate::caller;
use crate::process::{Ingress, run_command};
use crate::server::Server;

const KEY: &str = "zqthe-platform-keyqz";

/// What can be had of a whole ingress from outside, and what a panic and a full house would add.
const STATUSES: [u16; 16] = [
    400, 401, 404, 405, 408, 413, 414, 415, 417, 431, 501, 502, 503, 504, 505, 508,
];

/// A request with `secret` wherever one fits. `fields` are whole lines with their ends.
fn stuffed(first: &str, host: &str, fields: &str, body: &str, secret: &str) -> String {
    let first = first.replace(
        "{}",
        &format!(
            "api_key={secret}&API_KEY={secret}&api%5Fkey={secret}&token={secret}&{secret}&\
             redirectUrl=https://example.com/?token={secret}"
        ),
    );
    format!(
        "{first}\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\
         Proxy-Authorization: Basic {secret}\r\nCookie: session={secret}; other={secret}\r\n\
         Referer: http://localhost/?api_key={secret}\r\nX-Api-Key: {secret}\r\n\
         Sec-WebSocket-Protocol: {secret}\r\n{fields}\r\n{}",
        body.replace("{}", secret)
    )
}

const REQUESTS: &[(&str, &str, &str, &str)] = &[
    (
        "GET /api/helloworld/call?{} HTTP/1.1",
        "localhost",
        "Authorization: Basic x\r\n",
        "",
    ),
    ("GET /user/x?{} HTTP/1.1", "localhost", "", ""),
    ("GET /?{} HTTP/1.1", "user.m3o.com", "", ""),
    ("GET /?{} HTTP/1.1", "user:password@localhost", "", ""),
    ("GET /v1/helloworld/call?{} HTTP/1.1", "localhost", "", ""),
    ("GET /nothing?{} HTTP/1.1", "localhost", "", ""),
    ("GET /u/nothing?{} HTTP/1.1", "localhost", "", ""),
    ("GET /?{} HTTP/1.1", "nobody.m3o.app", "", ""),
    (
        "DELETE /api/helloworld/call?{} HTTP/1.1",
        "localhost",
        "",
        "",
    ),
    ("DELETE /u/nothing?{} HTTP/1.1", "localhost", "", ""),
    (
        "POST /?{} HTTP/1.1",
        "user.m3o.com",
        "Content-Length: 0\r\n",
        "",
    ),
    (
        "POST /api/user/login?{} HTTP/1.1",
        "localhost",
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 999\r\n",
        "password={}",
    ),
    (
        "POST /?{} HTTP/1.1",
        "quiet.m3o.app",
        "Content-Length: 9999\r\n",
        "password={}",
    ),
    (
        "POST /api/user/login?{} HTTP/1.1",
        "localhost",
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding: gzip\r\n\
         Content-Length: 9\r\n",
        "password=",
    ),
    (
        "GET /?{} HTTP/1.1",
        "quiet.m3o.app",
        "Expect: wonders\r\n",
        "",
    ),
    ("TRACE /?{} HTTP/1.1", "quiet.m3o.app", "", ""),
    (
        "GET /?{} HTTP/1.1",
        "quiet.m3o.app",
        "Transfer-Encoding: gzip\r\n",
        "",
    ),
    ("GET /?{} HTTP/1.1", "gone.m3o.app", "", ""),
    ("GET /?{} HTTP/1.1", "cut.m3o.app", "", ""),
    ("GET /?{} HTTP/1.1", "cut.m3o.sh", "", ""),
    ("GET /?{} HTTP/1.1", "quiet.m3o.app", "", ""),
    ("GET /?{} HTTP/3.9", "quiet.m3o.app", "", ""),
    (
        "GET /?{} HTTP/1.1",
        "quiet.m3o.app",
        "CDN-Loop: m3o-ingress\r\nCDN-Loop: m3o-ingress\r\nCDN-Loop: m3o-ingress\r\n",
        "",
    ),
];

#[test]
fn no_status_is_answered_with_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
        platform.store = 'memory'
        backends.allow_private = true
        timeouts = { header = '500ms', body = '300ms', response = '300ms' }
        limits = { uri = '1KiB', header = '8KiB', body = '4KiB', form = '1KiB' }
    ";
    let mut run = run_command(folder.path(), config);
    run.args(["--log-level", "trace", "--log-format", "json"]);
    let ingress = Ingress::start(run.env("M3O_PLATFORM_KEY", KEY));
    let mut planted = Planted::new(&ingress);
    register_backends(&mut planted, KEY);
    let quiet = Server::start(|_| {
        std::thread::park();
        String::new()
    });
    let app = serde_json::json!({"name": "quiet", "backend": quiet.url()});
    caller::api(ingress.http, KEY, "app/run", &app).fine();
    send_all(&mut planted);
    // Heads that are never whole, and heads that are too much.
    planted.send("half a request line", |secret| {
        format!("GET /?api_key={secret}")
    });
    planted.send("half a head", |secret| {
        format!(
            "GET /?api_key={secret} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}"
        )
    });
    for (uri, field) in [(2000, 1), (9000, 1), (1, 9000)] {
        planted.send("too much", |secret| {
            let first = format!("GET /?{{}}&x={} HTTP/1.1", "x".repeat(uri));
            let field = format!("X: {}\r\n", "x".repeat(field));
            stuffed(&first, "localhost", &field, "", secret)
        });
    }
    let mut statuses = planted.statuses();
    let (written, metrics) = finish(ingress);
    planted.check(&written, &metrics);

    // Where the API is gone.
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
        api.address = 'http://127.0.0.1:1'
        index.enabled = true
        timeouts.body = '300ms'
    ";
    let mut run = run_command(folder.path(), config);
    run.args(["--log-level", "trace", "--log-format", "human"]);
    let ingress = Ingress::start(run.env("M3O_API_TOKEN", KEY));
    let mut planted = Planted::new(&ingress);
    planted
        .canaries
        .push(("our own token".to_owned(), KEY.to_owned()));
    send_all(&mut planted);
    statuses.extend(planted.statuses());
    let (written, metrics) = finish(ingress);
    planted.check(&written, &metrics);
    for status in STATUSES {
        assert!(
            statuses.contains(&status),
            "{status} is not in {statuses:?}"
        );
    }
}

fn send_all(planted: &mut Planted) {
    for (first, host, fields, body) in REQUESTS {
        planted.send(first, |secret| stuffed(first, host, fields, body, secret));
    }
}
