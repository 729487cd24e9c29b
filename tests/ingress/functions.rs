//! Functions: as apps, by `function/Proxy`.

use crate::harness::api::error;
use crate::harness::backend::ok;
use crate::harness::{TestApi, TestBackend, TestIngress};

const PROXY: &str = "function/Proxy";

#[test]
fn a_function_is_found_by_function_proxy_and_forwarded_to() {
    let backend = TestBackend::answering(ok("result"));
    let api = TestApi::new();
    api.resolves(PROXY, &[("hello", &format!("{}/base", backend.url()))]);
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    for _ in 0..3 {
        let reply = caller
            .post("hello.m3o.sh", "/run?a=b", "", b"{}")
            .expect(200);
        assert_eq!(reply.text(), "result");
    }
    let call = api.only();
    assert_eq!(call.head.first, "POST /v1/function/Proxy HTTP/1.1");
    assert_eq!(call.field("Authorization"), Some("Bearer own-token"));
    assert_eq!(call.text(), r#"{"id":"hello"}"#);
    let seen = backend.last();
    assert_eq!(seen.head.first, "POST /base/run?a=b HTTP/1.1");
    assert_eq!(seen.field("X-Forwarded-Host"), Some("hello.m3o.sh"));
    assert_eq!(seen.text(), "{}");
}

#[test]
fn an_app_and_a_function_of_one_name_are_two() {
    let app = TestBackend::answering(ok("app"));
    let function = TestBackend::answering(ok("function"));
    let api = TestApi::with_app("same", &app.url());
    api.resolves(PROXY, &[("same", &function.url())]);
    let ingress = TestIngress::before(&api);
    assert_eq!(ingress.get("same.m3o.app", "/").text(), "app");
    assert_eq!(ingress.get("same.m3o.sh", "/").text(), "function");
    assert_eq!(ingress.get("same.m3o.app", "/").text(), "app");
}

#[test]
fn a_missing_function_is_a_404_and_remembered() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    for _ in 0..3 {
        let reply = ingress.get("nothere.m3o.sh", "/").expect(404);
        assert_eq!(reply.json()["id"], "ingress.function");
        assert_eq!(reply.json()["detail"], "there is no such function");
    }
    assert_eq!(api.calls(PROXY).len(), 1);
}

#[test]
fn a_function_that_cannot_be_found_right_now_is_a_503() {
    let api = TestApi::new();
    api.says(PROXY, error("500 Internal Server Error", "no"));
    let ingress = TestIngress::before(&api);
    let reply = ingress.get("hello.m3o.sh", "/").expect(503);
    assert!(reply.field("Retry-After").is_some());
}

#[test]
fn an_id_that_no_function_can_have_is_a_404_without_a_call() {
    let api = TestApi::new();
    let ingress = TestIngress::before(&api);
    for host in [
        "-a.m3o.sh",
        "a.b.m3o.sh",
        "a_b.m3o.sh",
        "evilm3o.sh",
        "m3o.sh",
    ] {
        assert_eq!(ingress.get(host, "/").status(), 404, "{host}");
    }
    assert_eq!(api.server().seen().len(), 0);
}
