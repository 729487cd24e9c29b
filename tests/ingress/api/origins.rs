//! Browsers: what a page of another origin may ask and read.

use super::{AUTHORIZED, CALL, HOST, passed, refused};
use crate::harness::backend::response;
use crate::harness::{Reply, TestApi, TestIngress};

#[test]
fn a_preflight_is_answered_here() {
    let fields = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n\
        Access-Control-Request-Headers: authorization,x-custom\r\n";
    let reply = refused("OPTIONS", "/api/helloworld/Call", fields, b"", 204);
    assert_eq!(
        reply.field("Access-Control-Allow-Origin"),
        Some("https://page.example")
    );
    let methods = reply.field("Access-Control-Allow-Methods").unwrap();
    assert!(
        methods.contains("POST") && methods.contains("GET"),
        "{methods}"
    );
    assert_eq!(
        reply.field("Access-Control-Allow-Headers"),
        Some("authorization,x-custom")
    );
    assert!(reply.field("Access-Control-Max-Age").is_some());
    assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
    assert!(reply.head.all("Vary").join(", ").contains("Origin"));

    let reply = refused("OPTIONS", "/api/helloworld/Call", "", b"", 204);
    assert!(reply.field("Allow").unwrap().contains("POST"));
}

#[test]
fn a_page_may_read_answers_and_errors() {
    let origin = "Origin: https://page.example\r\n";
    let check = |reply: &Reply| {
        assert_eq!(
            reply.field("Access-Control-Allow-Origin"),
            Some("https://page.example")
        );
        assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
        assert!(reply.head.all("Vary").join(", ").contains("Origin"));
    };
    let fields = format!("{AUTHORIZED}{origin}");
    let (_, reply) = passed("GET", "/api/helloworld/Call", &fields, b"");
    check(&reply);
    check(&refused("GET", "/api/helloworld/Call", origin, b"", 401));
    check(&refused("PUT", "/api/helloworld/Call", origin, b"", 405));
    let (_, reply) = passed("GET", "/api/helloworld/Call", AUTHORIZED, b"");
    assert_eq!(reply.field("Access-Control-Allow-Origin"), None);
}

#[test]
fn the_apis_own_word_on_origins_is_replaced() {
    let api = TestApi::new();
    let fields = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n";
    api.says(CALL, response("200 OK", fields, "{}"));
    let ingress = TestIngress::before(&api);
    let fields = format!("{AUTHORIZED}Origin: https://page.example\r\n");
    let reply = ingress
        .caller()
        .ask("GET", "/api/helloworld/Call", HOST, &fields);
    assert_eq!(
        reply.field("Access-Control-Allow-Origin"),
        Some("https://page.example")
    );
    assert_eq!(reply.field("Access-Control-Allow-Credentials"), None);
}
