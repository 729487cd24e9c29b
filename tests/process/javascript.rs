//! The official JavaScript client and a WebSocket client judge the API. What they check is in
//! tests/node.

use crate::process::Ingress;
use crate::tools;

/// Runs a script against a `dev` of its own.
#[track_caller]
fn judged_by(script: &str, prefix: &str) {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let address = format!("http://localhost:{}/", ingress.http.port());
    let said = tools::node(script, &[&address, prefix]);
    assert!(said.ends_with("all is as expected\n"), "{said}");
    ingress.stop();
}

#[test]
fn the_official_client_works_with_its_own_prefix() {
    judged_by("client.mjs", "v1/");
}

#[test]
fn the_official_client_works_with_the_prefix_of_browsers() {
    judged_by("client.mjs", "api/");
}

#[test]
fn a_browser_gives_its_token_as_a_subprotocol() {
    judged_by("websocket.mjs", "v1/");
    judged_by("websocket.mjs", "api/");
}
