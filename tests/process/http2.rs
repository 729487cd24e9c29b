//! HTTP/2 and TLS as clients that were not written here speak them: curl, and those of nghttp2.

use std::process::Command;

use serde_json::json;

use crate::caller::api;
use crate::process::Ingress;
use crate::server::{Server, ok};

/// The app of `dev`.
const APP: &str = "helloworld.app.localhost";

/// What a client prints. The packages are those that tests/setup installs.
#[track_caller]
fn said_by(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/setup"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a client of nghttp2 prints that asks for the app.
#[track_caller]
fn client(program: &str, arguments: &[&str], url: &str) -> String {
    let (_, port) = url.trim_end_matches('/').rsplit_once(':').unwrap();
    let authority = format!(":authority: {APP}:{port}");
    said_by(
        Command::new(program)
            .args(arguments)
            .args(["-H", &authority, url]),
    )
}

fn plain(ingress: &Ingress) -> String {
    format!("http://{}/", ingress.http)
}

fn secure(ingress: &Ingress) -> String {
    format!("https://localhost:{}/", ingress.https_port())
}

#[test]
fn nghttp_reads_an_app_frame_by_frame() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    for url in [plain(&ingress), secure(&ingress)] {
        let said = client("nghttp", &["-v"], &url);
        for line in [
            "[SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1]",
            "[SETTINGS_MAX_CONCURRENT_STREAMS(0x03):128]",
            "[SETTINGS_MAX_HEADER_LIST_SIZE(0x06):32768]",
            ":status: 200",
            "x-request-id: ",
            "Hello from",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }
    ingress.stop();
}

#[test]
fn h2load_gets_an_answer_to_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let secure = secure(&ingress);
    for (load, url) in [
        (["-c", "4", "-m", "32"], plain(&ingress)),
        (["-c", "2", "-m", "100"], secure.clone()),
    ] {
        let load = [&["-n", "2000"], &load[..]].concat();
        let said = client("h2load", &load, &url);
        let every = "2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(every), "{said}");
        assert!(said.contains("status codes: 2000 2xx"), "{said}");
        if url == secure {
            assert!(said.contains("Application protocol: h2"), "{said}");
            assert!(said.contains("TLS Protocol: TLSv1.3"), "{said}");
        }
    }
    ingress.stop();
}

#[test]
fn curl_asks_and_uploads_over_every_version_of_http_and_tls() {
    let echo = Server::start(|arrived| {
        let body = String::from_utf8(arrived.body).unwrap();
        ok("text/plain", &body)
    });
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let app = json!({"name": "echo", "backend": echo.url()});
    api(ingress.http, "dev", "app/Run", &app).fine();

    let big: String = (0..400_000).map(|number| format!("{number},")).collect();
    let file = folder.path().join("big");
    std::fs::write(&file, &big).unwrap();
    let authority = folder.path().join("ca.crt");
    let port = ingress.https_port();
    let host = "echo.app.localhost";
    let curl = |version: &[&str], more: &[&str]| {
        said_by(
            Command::new("curl")
                .args(["-sS", "--fail", "--max-time", "60", "--cacert"])
                .arg(&authority)
                .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
                .args(["-w", "%{http_version}"])
                .args(version)
                .args(more)
                .arg(format!("https://{host}:{port}/upload")),
        )
    };
    let at = format!("@{}", file.display());
    let file = file.to_str().unwrap();
    for (version, expected) in [
        (&["--http2"][..], "2"),
        (&["--http2", "--tls-max", "1.2"], "2"),
        (
            &["--http2", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"],
            "2",
        ),
        (&["--http1.1"], "1.1"),
        (&["--http1.1", "--tls-max", "1.2"], "1.1"),
        (&["--http1.0"], "1.1"),
    ] {
        assert_eq!(curl(version, &[]), expected, "{version:?}");
        for upload in [["--data-binary", &at], ["-T", file]] {
            let said = curl(version, &upload);
            let whole = said == big.clone() + expected;
            assert!(whole, "{version:?} {upload:?}: {} octets", said.len());
        }
    }
    ingress.stop();
}
