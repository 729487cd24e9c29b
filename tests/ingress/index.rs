//! The bare app host: the list of apps, where it is wanted.

use crate::harness::api::error;
use crate::harness::{TestApi, TestIngress};

const LIST: &str = "app/List";

fn listing(json: &str) -> (TestApi, TestIngress) {
    let api = TestApi::new();
    api.gives(LIST, json);
    let ingress = TestIngress::before_with(&api, |config| config.index.enabled = true);
    (api, ingress)
}

#[test]
fn the_index_is_off_unless_asked_for() {
    let api = TestApi::new();
    api.gives(LIST, r#"{"services":[{"id":"blog"}]}"#);
    let ingress = TestIngress::before(&api);
    ingress.get("m3o.app", "/").expect(404);
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn the_index_links_to_each_app() {
    let (api, ingress) = listing(
        r#"{"services":[{"id":"zoo","status":"running"},{"name":"blog","status":"running"}]}"#,
    );
    let reply = ingress.get("m3o.app:8080", "/").expect(200);
    assert_eq!(
        reply.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    let page = reply.text();
    let blog = page.find("http://blog.m3o.app:8080/").unwrap();
    let zoo = page.find("http://zoo.m3o.app:8080/").unwrap();
    assert!(blog < zoo, "they are in order");
    let call = api.only();
    assert_eq!(call.head.first, "POST /v1/app/List HTTP/1.1");
    assert_eq!(call.field("Authorization"), Some("Bearer own-token"));
    assert_eq!(call.text(), "{}");
}

#[test]
fn what_the_api_says_is_escaped_and_what_is_no_app_left_out() {
    let (_api, ingress) = listing(
        r#"{"services":[{"id":"blog","status":"<script>alert(1)</script>"},{"id":"<b>"},{"id":"a.b"},{}]}"#,
    );
    let page = ingress.get("m3o.app", "/").expect(200).text();
    assert!(page.contains("blog.m3o.app"));
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(
        !page.contains("<b>") && !page.contains("a.b.m3o.app"),
        "{page}"
    );
}

#[test]
fn an_empty_list_is_a_page_too() {
    let (_api, ingress) = listing("{}");
    ingress.get("m3o.app", "/").expect(200);
}

#[test]
fn an_index_without_an_api_is_an_error() {
    let (api, ingress) = listing("{}");
    api.says(LIST, error("500 Internal Server Error", "no"));
    ingress.get("m3o.app", "/").expect(503);
    api.says(LIST, error("401 Unauthorized", "no"));
    let told = ingress.get("m3o.app", "/").expect(502).text();
    assert!(told.contains("is not allowed to ask the API"), "{told}");
}

#[test]
fn other_methods_and_paths_of_the_bare_app_host_are_refused() {
    let (api, ingress) = listing("{}");
    let reply = ingress.caller().ask("POST", "/", "m3o.app", "").expect(405);
    assert_eq!(reply.field("Allow"), Some("GET, HEAD"));
    ingress.get("m3o.app", "/other").expect(404);
    assert_eq!(api.server().seen().len(), 0);
}

#[test]
fn the_platforms_apps_are_listed() {
    let ingress = TestIngress::embedded_with(|config| config.index.enabled = true);
    ingress.run_app("blog", "http://127.0.0.1:1");
    let page = ingress.get("m3o.app", "/").expect(200).text();
    assert!(page.contains("http://blog.m3o.app/"), "{page}");
}
