use super::*;

const PLAIN: &str = "127.0.0.1:80";
const OTHER: &str = "127.0.0.2:80";

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn https(text: &str) -> Option<Https> {
    let listeners = [PLAIN, OTHER].map(|address| address.parse().unwrap());
    // Others were there before these.
    let ids = [ListenerId(7), ListenerId(8)];
    Https::new(&config(text), ids.into_iter().zip(listeners))
}

#[track_caller]
fn check(text: &str, host: &str, listener: u32, scheme: Scheme, expected: &str) {
    let https = https(text).unwrap();
    let host = Host::parse(host).unwrap();
    let shown = match https.demand(&host, ListenerId(listener + 7), scheme, "/a") {
        Demand::Nothing => "nothing",
        Demand::Redirect => "redirect",
        Demand::Promise(value) => value.to_str().unwrap(),
    };
    assert_eq!(shown, expected, "{text} {host} {listener}");
}

#[test]
fn where_nothing_is_asked_for_there_is_nothing_to_look_up() {
    assert!(https("").is_none());
    assert!(https("port = 8443\nhsts_subdomains = true").is_none());
    assert!(https("[domains.\"m3o.app\"]\nredirect = false").is_none());
    assert!(https("hsts = '0s'").is_some());
}

#[test]
fn only_plain_http_is_redirected_and_nothing_is_promised_over_it() {
    let on = "redirect = true";
    check(on, "a.example", 0, Scheme::Http, "redirect");
    check(on, "a.example", 0, Scheme::Https, "max-age=31536000");
    check("hsts = '1d'", "a.example", 0, Scheme::Http, "nothing");
    check(
        "hsts = '1d'",
        "a.example",
        0,
        Scheme::Https,
        "max-age=86400",
    );
}

#[test]
fn a_year_is_promised_by_whoever_redirects_and_nothing_more() {
    let promises = |text: &str, expected| check(text, "a.example", 0, Scheme::Https, expected);
    promises("redirect = true\nhsts = '0s'", "max-age=0");
    promises("redirect = true\nhsts = '10m'", "max-age=600");
    promises(
        "redirect = true\nhsts_subdomains = true",
        "max-age=31536000; includeSubDomains",
    );
    promises(
        "hsts = '730d'\nhsts_subdomains = true\nhsts_preload = true",
        "max-age=63072000; includeSubDomains; preload",
    );
}

#[test]
fn a_domain_stands_over_the_listener_and_that_over_the_section() {
    let text = "hsts = '1d'\n\
        [listeners.\"127.0.0.2:80\"]\nredirect = true\n\
        [domains.\"m3o.app\"]\nredirect = true\n\
        [domains.\"blog.m3o.app\"]\nhsts = '2d'\n\
        [domains.\"old.m3o.app\"]\nredirect = false";
    check(text, "a.example", 0, Scheme::Http, "nothing");
    check(text, "a.example", 1, Scheme::Http, "redirect");
    check(text, "m3o.app", 0, Scheme::Http, "redirect");
    check(text, "x.y.M3O.app.:81", 0, Scheme::Http, "redirect");
    check(text, "evilm3o.app", 0, Scheme::Http, "nothing");
    check(text, "old.m3o.app", 1, Scheme::Http, "nothing");
    check(text, "new.old.m3o.app", 1, Scheme::Http, "nothing");
    // What the closest one leaves open, the next one says.
    check(text, "blog.m3o.app", 0, Scheme::Http, "redirect");
    check(text, "blog.m3o.app", 0, Scheme::Https, "max-age=172800");
    check(text, "m3o.app", 0, Scheme::Https, "max-age=86400");
    // One that is gone has what holds for all.
    check(text, "a.example", 9, Scheme::Http, "nothing");
    check(text, "m3o.app", 9, Scheme::Http, "redirect");
    check(text, "a.example", 9, Scheme::Https, "max-age=86400");
}

#[test]
fn a_challenge_of_an_authority_is_answered_over_plain_http() {
    let https = https("redirect = true").unwrap();
    let host = Host::parse("blog.m3o.app").unwrap();
    let demand = |path| https.demand(&host, ListenerId(0), Scheme::Http, path);
    assert_eq!(demand("/.well-known/acme-challenge/x"), Demand::Nothing);
    assert_eq!(demand("/.well-known/acme-challenge"), Demand::Redirect);
    assert_eq!(demand("/.well-known/other"), Demand::Redirect);
    assert_eq!(demand("/a/.well-known/acme-challenge/x"), Demand::Redirect);
}

#[test]
fn a_redirect_keeps_the_target_to_the_byte() {
    let leads = |text: &str, host: &str, target: &'static str, expected: &str| {
        let https = https(text).unwrap();
        let host = Host::parse(host).unwrap();
        let response = https.redirect(&host, &Uri::from_static(target)).unwrap();
        assert_eq!(response.status(), 308);
        assert_eq!(response.headers()["location"], expected, "{target}");
    };
    let on = "redirect = true";
    let app = "blog.m3o.app:8080";
    leads(on, app, "/", "https://blog.m3o.app/");
    leads(
        on,
        app,
        "/a//b/../%2e?x=%20&y=a+b&?",
        "https://blog.m3o.app/a//b/../%2e?x=%20&y=a+b&?",
    );
    leads(
        on,
        app,
        "//evil.example/",
        "https://blog.m3o.app//evil.example/",
    );
    leads(on, app, "http://other.example?q", "https://blog.m3o.app/?q");
    leads(on, app, "*", "https://blog.m3o.app/");
    leads(on, app, "blog.m3o.app:443", "https://blog.m3o.app/");
    leads(on, "[::1]:80", "/a", "https://[::1]/a");
    leads(
        "redirect = true\nport = 8443",
        app,
        "/a",
        "https://blog.m3o.app:8443/a",
    );
}

#[test]
fn lists_of_browsers_take_a_year_with_all_names_under_it() {
    let count = |text: &str| config(text).unlistable().count();
    assert_eq!(count(""), 0);
    assert_eq!(count("hsts_preload = true"), 1);
    assert_eq!(count("redirect = true\nhsts_preload = true"), 1);
    let fine = "redirect = true\nhsts_preload = true\nhsts_subdomains = true";
    assert_eq!(count(fine), 0);
    let text = format!("{fine}\n[domains.\"m3o.app\"]\nhsts = '364d'");
    let config = config(&text);
    let name: HostName = "m3o.app".parse().unwrap();
    assert_eq!(
        config.unlistable().collect::<Vec<_>>(),
        [Place::Domain(&name)]
    );
}

#[test]
fn the_keys_that_decide_are_told() {
    let text = "hsts = '1d'\n\
        [listeners.\"127.0.0.2:80\"]\nredirect = true\n\
        [domains.\"m3o.app\"]\nhsts_subdomains = true\n\
        [domains.\"blog.m3o.app\"]\nhsts = '2d'\n\
        [domains.\"old.m3o.app\"]\nredirect = false";
    let https = https(text).unwrap();
    let check = |host: &str, listener: u32, scheme, expected: &[&str]| {
        let host = Host::parse(host).unwrap();
        let listener = ListenerId(listener + 7);
        let demand = https.demand(&host, listener, scheme, "/");
        assert_eq!(https.reasons(&host, listener, demand), expected, "{host}");
    };
    let section = ["https.redirect = false"];
    check("a.example", 0, Scheme::Http, &section);
    check("blog.m3o.app", 0, Scheme::Http, &section);
    // One that is gone.
    check("blog.m3o.app", 9, Scheme::Http, &section);
    let listener = ["https.listeners.\"127.0.0.2:80\".redirect = true"];
    check("blog.m3o.app", 1, Scheme::Http, &listener);
    let domain = ["https.domains.\"old.m3o.app\".redirect = false"];
    check("a.old.m3o.app", 1, Scheme::Http, &domain);
    let promised = [
        "https.domains.\"blog.m3o.app\".hsts = 2d",
        "https.domains.\"m3o.app\".hsts_subdomains = true",
        "https.hsts_preload = false",
    ];
    check("blog.m3o.app", 0, Scheme::Https, &promised);
    let usual = self::https("redirect = true").unwrap();
    let host = Host::parse("a.example").unwrap();
    let demand = usual.demand(&host, ListenerId(7), Scheme::Https, "/");
    let reasons = usual.reasons(&host, ListenerId(7), demand);
    assert_eq!(reasons[0], "https.redirect = true", "it promises a year");
}
