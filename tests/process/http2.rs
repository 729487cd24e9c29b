//! HTTP/2 in the clear with prior knowledge, as clients speak it that were not written here.

use std::process::Command;

use crate::process::Ingress;

/// What a client of nghttp2 prints. The package is one of those that tests/setup installs.
#[track_caller]
fn client(program: &str, arguments: &[&str], ingress: &Ingress) -> String {
    let authority = format!(
        ":authority: helloworld.app.localhost:{}",
        ingress.http.port()
    );
    let output = Command::new(program)
        .args(arguments)
        .args(["-H", &authority, &format!("http://{}/", ingress.http)])
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run tests/setup"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nghttp_reads_an_app_frame_by_frame() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let said = client("nghttp", &["-v"], &ingress);
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
    ingress.stop();
}

#[test]
fn h2load_gets_an_answer_to_every_request() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let load = ["-n", "2000", "-c", "4", "-m", "32"];
    let said = client("h2load", &load, &ingress);
    let every = "2000 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(said.contains(every), "{said}");
    assert!(said.contains("status codes: 2000 2xx"), "{said}");
    ingress.stop();
}
