//! Which host a request is for: one effective authority, or a 400.

use crate::harness::backend::ok;
use crate::harness::{Reply, TestApi, TestBackend, TestIngress};

struct Blog {
    backend: TestBackend,
    api: TestApi,
    ingress: TestIngress,
}

fn blog() -> Blog {
    let backend = TestBackend::answering(ok("blog"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    Blog {
        backend,
        api,
        ingress,
    }
}

impl Blog {
    #[track_caller]
    fn send(&self, head: &str) -> Reply {
        let mut caller = self.ingress.caller();
        caller.send(head);
        caller.reply()
    }

    fn nobody_was_asked(&self) -> bool {
        self.backend.seen().is_empty() && self.api.server().seen().is_empty()
    }
}

#[test]
fn case_port_and_one_trailing_dot_do_not_matter() {
    let blog = blog();
    for host in [
        "blog.m3o.app",
        "BLOG.M3O.App",
        "blog.m3o.app.",
        "blog.m3o.app:8080",
        "blog.m3o.app.:8080",
        "blog.m3o.app:",
    ] {
        assert_eq!(
            blog.ingress.get(host, "/").expect(200).text(),
            "blog",
            "{host}"
        );
    }
    assert_eq!(blog.api.server().seen().len(), 1);
}

#[test]
fn a_request_without_a_host_is_a_400() {
    let blog = blog();
    blog.send("GET / HTTP/1.1\r\n\r\n").expect(400);
    blog.send("GET / HTTP/1.1\r\nHost:\r\n\r\n").expect(400);
    assert!(blog.nobody_was_asked());
}

#[test]
fn a_request_with_two_hosts_is_a_400() {
    let blog = blog();
    for head in [
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\nHost: blog.m3o.app\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blog.m3o.app\r\nHost: other.example\r\n\r\n",
        "GET http://blog.m3o.app/ HTTP/1.1\r\nHost: blog.m3o.app\r\nHost: b.example\r\n\r\n",
    ] {
        blog.send(head).expect(400);
    }
    assert!(blog.nobody_was_asked());
}

#[test]
fn a_host_that_is_none_is_a_400() {
    let blog = blog();
    let long = format!("{}.m3o.app", "x.".repeat(130));
    for host in [
        "user@blog.m3o.app",
        "blog.m3o.app, other.example",
        "blog .m3o.app",
        "blog.m3o.app:http",
        "blog.m3o.app:99999",
        "blog.m3o.app/x",
        "blog\\.m3o.app",
        "bl%6Fg.m3o.app",
        "blög.m3o.app",
        "[::1",
        ":80",
        ".",
        &long,
    ] {
        let reply = blog.ingress.get(host, "/");
        assert_eq!(reply.status(), 400, "{host}");
        assert!(reply.field("X-Request-Id").is_some());
    }
    assert!(blog.nobody_was_asked());
}

#[test]
fn an_absolute_target_wins_over_the_host_field() {
    let blog = blog();
    let reply = blog.send("GET http://Blog.m3o.app:81/a?b HTTP/1.1\r\nHost: other.example\r\n\r\n");
    assert_eq!(reply.expect(200).text(), "blog");
    let seen = blog.backend.only();
    assert_eq!(seen.target(), "/a?b");
    assert_eq!(seen.field("X-Forwarded-Host"), Some("Blog.m3o.app:81"));
    assert_eq!(seen.field("Host"), Some(&*blog.backend.address.to_string()));
    blog.send("GET http://other.example/ HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n")
        .expect(404);
}

#[test]
fn an_absolute_target_without_a_path_gets_one() {
    let backend = TestBackend::answering(ok("hello"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    for (target, forwarded) in [("?x=1", "/?x=1"), ("", "/")] {
        let mut caller = ingress.caller();
        caller.send(format!(
            "GET http://blog.m3o.app{target} HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n"
        ));
        caller.reply().expect(200);
        assert_eq!(backend.last().target(), forwarded);
    }
}

#[test]
fn an_absolute_target_with_user_information_is_a_400() {
    let blog = blog();
    blog.send("GET http://u:p@blog.m3o.app/ HTTP/1.1\r\nHost: blog.m3o.app\r\n\r\n")
        .expect(400);
    assert!(blog.nobody_was_asked());
}

#[test]
fn http_1_0_is_served_and_closed() {
    let blog = blog();
    let mut caller = blog.ingress.caller();
    caller.send("GET / HTTP/1.0\r\nHost: blog.m3o.app\r\n\r\n");
    assert_eq!(caller.reply().expect(200).text(), "blog");
    assert_eq!(caller.rest(), b"");
    assert_eq!(blog.backend.only().field("Via"), Some("1.0 m3o-ingress"));
}

#[test]
fn http_1_0_never_gets_chunks() {
    let backend = TestBackend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before(&api);
    let mut caller = ingress.caller();
    caller.send("GET / HTTP/1.0\r\nHost: blog.m3o.app\r\n\r\n");
    let reply = caller.reply().expect(200);
    assert_eq!(reply.field("Transfer-Encoding"), None);
    assert_eq!(reply.text(), "hello");
}

#[test]
fn names_are_matched_at_a_dot() {
    let blog = blog();
    for host in [
        "evilm3o.app",
        "m3o.app.evil.example",
        "blog.m3o.app.evil.example",
        "a.blog.m3o.app",
        "notuser.m3o.com",
        "blog..m3o.app",
        ".m3o.app",
        "127.0.0.1",
        "[::1]:80",
    ] {
        let status = blog.ingress.get(host, "/").status();
        assert!(matches!(status, 404 | 400), "{host} {status}");
    }
    assert!(blog.nobody_was_asked());
}

#[test]
fn several_names_of_one_kind_all_work() {
    let backend = TestBackend::answering(ok("blog"));
    let api = TestApi::with_app("blog", &backend.url());
    let ingress = TestIngress::before_with(&api, |config| {
        config.hosts.app = vec!["m3o.app".parse().unwrap(), "app.localhost".parse().unwrap()];
    });
    ingress.get("blog.m3o.app", "/").expect(200);
    ingress.get("blog.app.localhost:8080", "/").expect(200);
}

#[test]
fn paths_that_are_no_route_are_a_404() {
    let blog = blog();
    for path in [
        "/",
        "/x",
        "/api",
        "/api/",
        "/api/a",
        "/api/a/b/c/d",
        "/v1/a",
        "/u",
        "/url/",
        "/users/x",
    ] {
        blog.ingress.get("any.example", path).expect(404);
    }
    for path in [
        "/api/../v1/a",
        "/api/a/%2e%2e",
        "/v1/a//b",
        "/api/a/b%2fc",
        "/API/a/b",
    ] {
        blog.ingress.get("any.example", path).expect(404);
    }
    assert!(blog.nobody_was_asked());
}
