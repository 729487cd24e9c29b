use proptest::prelude::*;

use super::*;
use crate::config::{Config, Environment};
use crate::control::of_configuration;
use crate::domains::Standing;
use crate::id::WorkloadId;

mod decisions;

const CONFIG: &str = "
[listen]
http = '127.0.0.1:80'
[api]
address = 'https://api.example'
[backends]
trusted_proxies = ['10.0.0.0/8']
[index]
enabled = true
";

fn sources(more: &str) -> Sources {
    let text = format!("{more}\n{CONFIG}");
    of_configuration(&Config::parse("f", &text, &Environment::default()).unwrap())
}

fn question(url: &str) -> Question {
    Question {
        url: url.to_owned(),
        host: None,
        method: None,
        headers: Vec::new(),
        from: None,
    }
}

/// Asks without a wait: where nobody is asked there is nothing to wait for.
fn explained(question: &Question, sources: &Sources) -> Result<Explanation, BadQuestion> {
    use futures_util::FutureExt;
    explain(question, sources).now_or_never().unwrap()
}

#[track_caller]
fn check_with(question: &Question, more: &str, expected: &str) {
    let text = explained(question, &sources(more)).unwrap().to_text();
    assert_eq!(text.trim_end(), expected.trim(), "\n{text}");
}

#[track_caller]
fn check(url: &str, expected: &str) {
    check_with(&question(url), "", expected);
}

/// The answer alone.
#[track_caller]
fn answer(question: &Question, more: &str, expected: &str) {
    let explained = explained(question, &sources(more)).unwrap();
    let text = explained.to_text();
    let last = text.lines().last().unwrap().trim_start();
    let last = last.strip_prefix("answer").unwrap().trim_start();
    assert_eq!(last, expected, "\n{text}");
}

#[test]
fn an_app_of_a_remote_api() {
    check(
        "http://blog.m3o.app/a?b=c",
        "
GET http://blog.m3o.app/a?b=[hidden]

  listener   127.0.0.1:80, http                                    listen.http
  client     203.0.113.1, a stranger                               backends.trusted_proxies = [10.0.0.0/8]
  authority  blog.m3o.app
  route      app blog                                              hosts.app = \"m3o.app\"
  https      nobody is sent there                                  https.redirect = false
  request    GET, a target of 6 bytes                              limits.uri = 16KiB, limits.body = 1GiB
  cache      unknown here: would ask POST /v1/app/Resolve of https://api.example
  address    any that is neither private nor our own               backends.allow_private = false
  added      x-forwarded-for: 203.0.113.1
  added      x-forwarded-host: blog.m3o.app
  added      x-forwarded-proto: http
  added      x-forwarded-port: 80
  added      via: 1.1 m3o-ingress
  added      cdn-loop: m3o-ingress
  added      x-request-id: NEW
  timeout    connect within 5s                                     timeouts.connect = 5s
  timeout    response within 1m                                    timeouts.response = 1m
  timeout    body within 30s                                       timeouts.body = 30s
  answer     what the backend answers, if there is one: only the API knows",
    );
}

#[test]
fn a_function_is_found_by_its_own_host() {
    check(
        "greet.m3o.sh",
        "
GET http://greet.m3o.sh/

  listener   127.0.0.1:80, http                                    listen.http
  client     203.0.113.1, a stranger                               backends.trusted_proxies = [10.0.0.0/8]
  authority  greet.m3o.sh
  route      function greet                                        hosts.function = \"m3o.sh\"
  https      nobody is sent there                                  https.redirect = false
  request    GET, a target of 1 byte                               limits.uri = 16KiB, limits.body = 1GiB
  cache      unknown here: would ask POST /v1/function/Proxy of https://api.example
  address    any that is neither private nor our own               backends.allow_private = false
  added      x-forwarded-for: 203.0.113.1
  added      x-forwarded-host: greet.m3o.sh
  added      x-forwarded-proto: http
  added      x-forwarded-port: 80
  added      via: 1.1 m3o-ingress
  added      cdn-loop: m3o-ingress
  added      x-request-id: NEW
  timeout    connect within 5s                                     timeouts.connect = 5s
  timeout    response within 1m                                    timeouts.response = 1m
  timeout    body within 30s                                       timeouts.body = 30s
  answer     what the backend answers, if there is one: only the API knows",
    );
}

#[test]
fn a_call_with_its_key_in_the_url_hides_it() {
    check(
        "http://m3o.one/api/helloworld/call?api_key=canary&name=John",
        "
GET http://m3o.one/api/helloworld/call?api_key=[hidden]&name=[hidden]

  listener   127.0.0.1:80, http                                    listen.http
  client     203.0.113.1, a stranger                               backends.trusted_proxies = [10.0.0.0/8]
  authority  m3o.one
  route      the API, helloworld/call
  https      nobody is sent there                                  https.redirect = false
  request    GET, a target of 45 bytes                             limits.uri = 16KiB, limits.body = 1GiB
  key        that of the URL, taken out of it
  added      x-forwarded-for: 203.0.113.1
  added      x-forwarded-host: m3o.one
  added      x-forwarded-proto: http
  added      x-forwarded-port: 80
  added      via: 1.1 m3o-ingress
  added      cdn-loop: m3o-ingress
  added      x-request-id: NEW
  added      authorization: [hidden]
  body       one JSON object, made of the query                    limits.form = 1MiB
  upstream   POST /v1/helloworld/call of https://api.example
  timeout    response within 1m                                    timeouts.response = 1m
  answered   Cache-Control: no-store, Referrer-Policy: no-referrer
  answer     what the API answers, for any page to read",
    );
    answer(
        &question("http://m3o.one/api/helloworld/call"),
        "",
        "401 no key (http_request_denied)",
    );
}

#[test]
fn a_short_link_by_host_and_by_path() {
    let would = "302 to where the link leads, if there is one";
    for url in ["http://m3o.one/promo", "http://any.example/u/promo"] {
        answer(&question(url), "", would);
    }
    let explained = explained(&question("http://m3o.one/promo"), &sources("")).unwrap();
    let link = explained.steps.last().unwrap();
    let expected = "unknown here: would ask POST /v1/url/Resolve of https://api.example; a request would count as a visit";
    assert_eq!((&*link.name, &*link.what), ("link", expected));
    let mut posted = question("http://m3o.one/promo");
    posted.method = Some("POST".to_owned());
    answer(
        &posted,
        "",
        "405 the method is not allowed here (http_request_error)",
    );
}

#[test]
fn a_verification_link_hides_its_token_wherever_it_is() {
    check(
        "http://user.m3o.com/?token=canary&redirectUrl=https://m3o.com/canary",
        "
GET http://user.m3o.com/?token=[hidden]&redirectUrl=[hidden]

  listener   127.0.0.1:80, http                                    listen.http
  client     203.0.113.1, a stranger                               backends.trusted_proxies = [10.0.0.0/8]
  authority  user.m3o.com
  route      a verification link                                   hosts.user = \"user.m3o.com\"
  https      nobody is sent there                                  https.redirect = false
  request    GET, a target of 49 bytes                             limits.uri = 16KiB, limits.body = 1GiB
  redirects  to hosts that are allowed                             user.redirect_hosts = []
  token      spent by POST /v1/user/VerifyEmail of https://api.example  user.confirm = \"never\"
  answer     302 to where the link says, or a page, by whether the token is good",
    );
    for url in [
        "http://user.m3o.com/user/canary",
        "http://user.m3o.com/canary?token=canary",
        "http://any.example/user/canary",
        "http://bad host/user/canary",
        "http://a..b/user/canary",
    ] {
        let text = explained(&question(url), &sources("")).unwrap().to_text();
        assert!(!text.contains("canary"), "{text}");
    }
    let other = "http://user.m3o.com/?token=t&redirectUrl=https://evil.example/";
    answer(
        &question(other),
        "user.redirect_hosts = 'm3o.com'",
        "400 a redirect target on a host that is not allowed (http_request_error)",
    );
}

#[test]
fn a_custom_domain_is_an_app_or_a_proof() {
    let sources = sources("");
    let app = WorkloadId::parse("blog").unwrap();
    sources.settings.domains.apply([
        ("blog.example".into(), Some(Standing::Proven(app))),
        (
            "shop.example".into(),
            Some(Standing::Awaited("t0ken".into())),
        ),
    ]);
    let route = |url: &str| {
        let explained = explained(&question(url), &sources).unwrap();
        let step = explained
            .steps
            .into_iter()
            .find(|step| step.name == "route");
        let step = step.unwrap();
        (step.what, step.by.join(" "), explained.answer.status)
    };
    let by = || "a custom domain".to_owned();
    let blog = ("app blog".to_owned(), by(), None);
    assert_eq!(route("http://blog.example/"), blog);
    let proof = ("the proof of a custom domain".to_owned(), by(), Some(200));
    let at = "http://shop.example/.well-known/m3o-domain-verification/t0ken";
    assert_eq!(route(at), proof);
    let other = ("none".to_owned(), String::new(), Some(404));
    assert_eq!(route("http://shop.example/"), other);
}

#[test]
fn what_leads_nowhere() {
    for url in [
        "http://evilm3o.app/",
        "http://a.b.m3o.app/",
        "http://nobody.example/",
        "http://127.0.0.1/x",
    ] {
        answer(&question(url), "", "404 no route (destination_not_found)");
    }
    answer(
        &question("http://bad_host!/"),
        "",
        "400 the request's host is not valid: the host has a character that no host name has (http_request_error)",
    );
}

#[test]
fn plain_http_is_sent_to_https() {
    let redirect = "[https]\nredirect = true\nport = 8443";
    let question = question("http://blog.m3o.app/a?token=canary");
    let explained = explained(&question, &sources(redirect)).unwrap();
    let last = explained.steps.last().unwrap();
    assert_eq!(
        last.what,
        "sent to https://blog.m3o.app:8443/a?token=[hidden]"
    );
    assert_eq!(last.by, ["https.redirect = true"]);
    answer(&question, redirect, "308 Permanent Redirect");
    // What a trusted proxy says of the address bar counts.
    let mut behind = question;
    behind.from = Some("10.1.2.3".parse().unwrap());
    behind.headers = vec!["X-Forwarded-Proto: https".to_owned()];
    let explained = tests::explained(&behind, &sources(redirect)).unwrap();
    let text = explained.to_text();
    assert!(
        text.contains("adds Strict-Transport-Security: max-age=31536000"),
        "{text}"
    );
}

#[test]
fn a_websocket_may_have_its_key_as_a_subprotocol() {
    let mut asked = question("http://m3o.com/v1/helloworld/Stream");
    asked.headers = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    .map(str::to_owned)
    .to_vec();
    answer(&asked, "", "401 no key (http_request_denied)");
    asked
        .headers
        .push("Sec-WebSocket-Protocol: canary".to_owned());
    answer(&asked, "", "101, if the API agrees; else what it answers");
    let text = explained(&asked, &sources("")).unwrap().to_text();
    assert!(
        text.contains("the first subprotocol, which the answer names"),
        "{text}"
    );
    assert!(
        !text.contains("canary") && !text.contains("limits.form"),
        "{text}"
    );
}

#[test]
fn what_is_too_long_with_its_key_is_too_long() {
    let url = format!("http://m3o.com/v1/a/b?api_key={}", "x".repeat(100));
    let refused = "414 the URI is longer than the limit (http_request_error)";
    answer(&question(&url), "limits.uri = 64", refused);
}

#[test]
fn what_is_too_large_or_has_been_here_too_often() {
    let long = format!("http://blog.m3o.app/{}", "x".repeat(20_000));
    answer(
        &question(&long),
        "",
        "414 the URI is longer than the limit (http_request_error)",
    );
    let longer = format!("http://blog.m3o.app/{}", "x".repeat(40_000));
    answer(
        &question(&longer),
        "",
        "414 the target is larger than this server takes (http_request_error)",
    );
    let mut looping = question("http://m3o.one/v1/helloworld/call");
    looping.headers = vec!["CDN-Loop: m3o-ingress, m3o-ingress, m3o-ingress".to_owned()];
    answer(
        &looping,
        "",
        "508 the request has been here too often (proxy_loop_detected)",
    );
    let mut traced = question("http://blog.m3o.app/");
    traced.method = Some("TRACE".to_owned());
    answer(
        &traced,
        "",
        "501 the method is not supported (http_request_error)",
    );
}

#[test]
fn what_strangers_say_of_others_is_removed() {
    let mut lying = question("http://blog.m3o.app/");
    lying.headers = [
        "X-Forwarded-For: 192.0.2.7",
        "X-Real-IP: 192.0.2.7",
        "Cookie: session=canary",
        "Connection: close, X-Mine",
        "X-Mine: canary",
    ]
    .map(str::to_owned)
    .to_vec();
    let explained = explained(&lying, &sources("")).unwrap();
    let removed = explained.steps.iter().find(|step| step.name == "removed");
    assert_eq!(removed.unwrap().what, "connection, x-mine, x-real-ip");
    let text = explained.to_text();
    assert!(text.contains("x-forwarded-for: 203.0.113.1"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn no_client_sends_such_a_url() {
    let check = |url: &str, expected| {
        let error = explained(&question(url), &sources("")).unwrap_err();
        assert_eq!(error, expected, "{url}");
    };
    check("", BadQuestion::Host);
    check("https://", BadQuestion::Host);
    check("/path", BadQuestion::Host);
    check("ftp://m3o.app", BadQuestion::Scheme);
    check("http://user:canary@m3o.app/", BadQuestion::UserInfo);
    check("http://m3o.app/\r\nHost: other", BadQuestion::Control);
}

proptest! {
    #[test]
    fn any_text_is_explained_or_refused_and_makes_one_line_a_step(
        url in "(https?://)?[a-z.:@\\[\\]%/?#&=]{0,12}(m3o\\.app|m3o\\.one|user\\.m3o\\.com)?(/\\PC{0,20})?",
        host in proptest::option::of("\\PC{0,12}"),
        method in proptest::option::of("[A-Z]{1,8}|\\PC{0,6}"),
        field in "\\PC{0,20}",
    ) {
        let headers = if field.is_empty() { Vec::new() } else { vec![field] };
        let question = Question { url, host, method, headers, from: None };
        if let Ok(explained) = explained(&question, &sources("")) {
            let text = explained.to_text();
            prop_assert_eq!(text.lines().count(), explained.steps.len() + 3);
            let json = serde_json::to_string(&explained).unwrap();
            let read: Explanation = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, explained);
        }
    }

    #[test]
    fn any_bytes_at_all_are_no_panic(url in "\\PC*", wild in any::<String>()) {
        for url in [url, wild] {
            let _outcome = explained(&question(&url), &sources(""));
        }
    }
}
