//! Short links: what the API is asked, where they lead, what is refused.

use crate::harness::api::error;
use crate::harness::backend::response;
use crate::harness::{TestApi, TestBackend, TestIngress};

const RESOLVE: &str = "url/Resolve";

fn leading_to(destination: &str) -> (TestApi, TestIngress) {
    let api = TestApi::new();
    let json = serde_json::json!({ "destinationURL": destination }).to_string();
    api.gives(RESOLVE, &json);
    let ingress = TestIngress::before(&api);
    (api, ingress)
}

#[test]
fn a_short_link_redirects_to_its_destination_to_the_byte() {
    for destination in [
        "https://example.com",
        "https://EXAMPLE.com/A?b=c&d=%zz#e",
        "http://example.com:8080/a//b/../c",
        "HTTPS://example.com/%C3%A4",
        "https://xn--bcher-kva.example/'\"<>`{}|^",
        "https://[::1]/x",
    ] {
        let (_api, ingress) = leading_to(destination);
        let reply = ingress.get("m3o.one", "/u/abc").expect(302);
        assert_eq!(reply.field("Location"), Some(destination));
    }
}

#[test]
fn a_short_link_is_asked_for_by_its_id_with_our_own_token() {
    for path in ["/u/Ab-_9", "/url/Ab-_9", "/u/Ab-_9?utm=x"] {
        let (api, ingress) = leading_to("https://example.com/");
        let fields = "Authorization: Bearer of-the-client\r\nCookie: a=b\r\n";
        ingress
            .caller()
            .ask("GET", path, "any.example", fields)
            .expect(302);
        let call = api.only();
        assert_eq!(call.head.first, "POST /v1/url/Resolve HTTP/1.1");
        assert_eq!(call.field("Authorization"), Some("Bearer own-token"));
        assert_eq!(call.field("Cookie"), None);
        assert_eq!(call.text(), r#"{"id":"Ab-_9"}"#);
    }
}

#[test]
fn any_other_path_of_a_url_host_is_a_short_link_by_its_whole_url() {
    let (api, ingress) = leading_to("https://example.com/");
    ingress.get("M3O.one:8080", "/Ab").expect(302);
    assert_eq!(api.only().text(), r#"{"shortURL":"https://m3o.one/Ab"}"#);
    ingress.get("m3o.one", "/").expect(404);
    ingress.get("other.example", "/Ab").expect(404);
    assert_eq!(api.calls(RESOLVE).len(), 1);
}

#[test]
fn a_short_link_is_asked_for_each_time_since_each_is_a_hit() {
    let (api, ingress) = leading_to("https://example.com/");
    for _ in 0..3 {
        ingress.get("m3o.one", "/u/abc").expect(302);
    }
    assert_eq!(api.calls(RESOLVE).len(), 3);
}

#[test]
fn a_redirect_is_not_kept_by_caches() {
    let (_api, ingress) = leading_to("https://example.com/");
    let reply = ingress.get("m3o.one", "/u/abc").expect(302);
    let kept = reply.field("Cache-Control").unwrap();
    assert!(
        kept.contains("no-cache") || kept.contains("no-store"),
        "{kept}"
    );
}

#[test]
fn a_missing_short_link_is_a_404() {
    for status in ["404 Not Found", "400 Bad Request"] {
        let api = TestApi::new();
        api.says(RESOLVE, error(status, "secret detail"));
        let ingress = TestIngress::before(&api);
        let reply = ingress.get("m3o.one", "/u/abc").expect(404);
        assert!(!reply.text().contains("secret detail"));
        assert_eq!(reply.json()["id"], "ingress.link");
    }
}

#[test]
fn an_id_that_no_short_link_can_have_is_a_404_without_a_call() {
    let (api, ingress) = leading_to("https://example.com/");
    let long = format!("/u/{}", "x".repeat(129));
    for path in [
        "/u/", "/u/a.b", "/u/a%20b", "/u/a%2fb", "/url/a~b", "/u/ä", &long,
    ] {
        let status = ingress.get("any.example", path).status();
        assert!(matches!(status, 404 | 400), "{path} {status}");
    }
    assert_eq!(api.server().seen().len(), 0);
    let longest = format!("/u/{}", "x".repeat(128));
    ingress.get("any.example", &longest).expect(302);
}

#[test]
fn a_destination_that_browsers_could_misread_is_a_502() {
    for destination in [
        "",
        "/relative",
        "//example.com/",
        "example.com",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://example.com/",
        "https://",
        "https:///x",
        "https:example.com",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com\\@evil.example/",
        "https://example.com/a b",
        " https://example.com/",
        "https://example.com/\t",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\u{0}",
        "https://example.com/ä",
        "https://bücher.example/",
    ] {
        let (_api, ingress) = leading_to(destination);
        let reply = ingress.get("m3o.one", "/u/abc");
        assert_eq!(reply.status(), 502, "{destination:?}");
        assert_eq!(reply.field("Location"), None);
        assert_eq!(reply.field("Set-Cookie"), None);
    }
}

#[test]
fn an_answer_of_the_api_that_makes_no_sense_is_a_502() {
    for answer in [
        response("200 OK", "Content-Type: text/html\r\n", "<html>"),
        response("200 OK", "", "{}"),
        response("200 OK", "", r#"{"destinationURL":"#),
        response("302 Found", "Location: https://evil.example/\r\n", ""),
    ] {
        let api = TestApi::new();
        api.says(RESOLVE, answer.clone());
        let ingress = TestIngress::before(&api);
        assert_eq!(ingress.get("m3o.one", "/u/abc").status(), 502, "{answer}");
    }
}

#[test]
fn an_api_that_refuses_our_own_token_is_a_502_that_says_so() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let api = TestApi::new();
        api.says(RESOLVE, error(status, "not you"));
        let ingress = TestIngress::before(&api);
        let told = ingress.get("m3o.one", "/u/abc").expect(502).text();
        assert!(told.contains("is not allowed to ask the API"), "{told}");
    }
}

#[test]
fn an_api_that_is_down_is_a_503() {
    let api = TestApi::new();
    api.says(RESOLVE, error("500 Internal Server Error", "no"));
    let ingress = TestIngress::before(&api);
    let reply = ingress.get("m3o.one", "/u/abc").expect(503);
    assert!(reply.field("Retry-After").is_some());
}

#[test]
fn only_get_and_head_follow_a_short_link() {
    let (api, ingress) = leading_to("https://example.com/");
    let reply = ingress
        .caller()
        .ask("HEAD", "/u/abc", "m3o.one", "")
        .expect(302);
    assert_eq!(reply.field("Location"), Some("https://example.com/"));
    assert_eq!(api.calls(RESOLVE).len(), 1);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = ingress
            .caller()
            .ask(method, "/u/abc", "m3o.one", "")
            .expect(405);
        assert_eq!(reply.field("Allow"), Some("GET, HEAD"));
    }
    assert_eq!(api.calls(RESOLVE).len(), 1);
}

#[test]
fn the_platform_makes_links_that_work_and_counts_visits_but_not_looks() {
    let target = TestBackend::answering("");
    let ingress = TestIngress::embedded();
    let json = serde_json::json!({ "destinationURL": format!("{}/a?b", target.url()) });
    let made = ingress
        .post_json("url/Shorten", &json.to_string())
        .expect(200)
        .json();
    let short = made["shortURL"].as_str().unwrap().to_owned();
    let (host, path) = short
        .strip_prefix("https://")
        .and_then(|rest| rest.split_once('/'))
        .unwrap();
    let path = format!("/{path}");
    let expected = format!("{}/a?b", target.url());
    for _ in 0..2 {
        let reply = ingress.get(host, &path).expect(302);
        assert_eq!(reply.field("Location"), Some(&*expected));
    }
    ingress.caller().ask("HEAD", &path, host, "").expect(302);
    // The last segment alone, on a host of short links, is the same link.
    let id = path.rsplit('/').next().unwrap();
    ingress.get(host, &format!("/{id}")).expect(302);
    crate::harness::eventually("the visits are counted", || {
        let asked = serde_json::json!({ "shortURL": short }).to_string();
        let listed = ingress.post_json("url/List", &asked).expect(200).json();
        listed["urlPairs"][0]["hitCount"] == "3"
    });
}

#[test]
fn the_platform_refuses_to_keep_what_it_would_not_send() {
    let ingress = TestIngress::embedded();
    for destination in [
        "javascript:alert(1)",
        "https://a@b.example/",
        "/x",
        "https://a b/",
    ] {
        let json = serde_json::json!({ "destinationURL": destination }).to_string();
        ingress.post_json("url/Shorten", &json).expect(400);
    }
}

#[test]
fn a_path_of_the_api_that_is_no_endpoint_is_no_missing_short_link() {
    let ingress = TestIngress::embedded();
    for path in ["/api/", "/api/helloworld", "/v1/a/b/c/d"] {
        for method in ["GET", "POST"] {
            let reply = ingress
                .caller()
                .ask(method, path, "m3o.one", "")
                .expect(404);
            let told = reply.text();
            assert!(told.contains("there is no such endpoint"), "{path} {told}");
        }
    }
    let told = ingress.get("m3o.one", "/u/none").expect(404).text();
    assert!(told.contains("there is no such short link"), "{told}");
}
