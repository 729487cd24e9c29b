//! What decides: keys of routes, of HTTPS and of rates, and the certificate of a handshake.

use super::*;
use crate::tls::certificate::Certificate;
use crate::tls::keyring::Source;

#[test]
fn the_rates_that_a_request_counts_for_where_it_does() {
    let rates = "
[rates]
peer = '100/s'
key = '10/m burst 5'
app = '50/s'
exempt = ['192.0.2.0/24']
apps = { blog = '7/s' }
";
    let told = |question: &Question| -> Vec<(String, String)> {
        let steps = explained(question, &sources(rates)).unwrap().steps;
        let named = |step: &Step| match &*step.name {
            "rates" => Some((step.what.clone(), step.by.join(" "))),
            _ => None,
        };
        steps.iter().filter_map(named).collect()
    };
    let check = |question: &Question, expected: &[(&str, &str)]| {
        let owned = |(whom, by): &(&str, &str)| {
            let what = format!("counted for the {whom}: 429 beyond it");
            (what, (*by).to_owned())
        };
        let expected: Vec<_> = expected.iter().map(owned).collect();
        assert_eq!(told(question), expected, "{}", question.url);
    };
    let peer = ("client", "rates.peer = 100/s");
    check(
        &question("http://blog.m3o.app/"),
        &[peer, ("app", "rates.apps.blog = 7/s")],
    );
    check(
        &question("http://other.m3o.app/"),
        &[peer, ("app", "rates.app = 50/s")],
    );
    check(
        &question("http://greet.m3o.sh/"),
        &[peer, ("function", "rates.app = 50/s")],
    );
    let call = "http://m3o.com/v1/helloworld/call?api_key=k";
    let key = ("key", "rates.key = 10/m burst 5");
    check(&question(call), &[peer, key]);
    check(&question("http://m3o.one/abc"), &[peer]);
    // Before there is a host that it could be for.
    check(&question("http://bad_host!/"), &[peer]);
    // No key, none counted; nor by what only asks whether a page may call.
    check(&question("http://m3o.com/v1/helloworld/call"), &[peer]);
    let mut preflight = question(call);
    preflight.method = Some("OPTIONS".to_owned());
    check(&preflight, &[peer]);

    let mut exempt = question("http://blog.m3o.app/");
    exempt.from = Some("192.0.2.9".parse().unwrap());
    let none = "none for this client".to_owned();
    let net = "rates.exempt = [192.0.2.0/24]".to_owned();
    assert_eq!(told(&exempt), [(none, net)]);

    let mut unreadable = question("http://m3o.com/v1/helloworld/call");
    unreadable.headers = vec!["Authorization: Basic canary*".to_owned()];
    let refused = "400 the request is malformed (http_request_error)";
    answer(&unreadable, rates, refused);
    answer(
        &unreadable,
        "",
        "what the API answers, for any page to read",
    );
}

/// The keys of the step called `name`, and how it is answered.
fn keys_of(name: &str, question: &Question, sources: &Sources) -> String {
    let steps = explained(question, sources).unwrap().steps;
    let step = steps.into_iter().find(|step| step.name == name);
    step.unwrap().by.join(", ")
}

#[test]
fn only_keys_that_decide_on_the_route_are_told() {
    let sources =
        sources("hosts.url = ['m3o.one', 'm3o.com']\nhosts.app = ['m3o.app', 'a.m3o.com']");
    for (url, expected) in [
        ("blog.m3o.app", "hosts.app = \"m3o.app\""),
        ("blog.a.m3o.com", "hosts.app = \"a.m3o.com\""),
        ("m3o.app/", "hosts.app = \"m3o.app\""),
        ("a.b.m3o.app", "hosts.app = \"m3o.app\""),
        ("greet.m3o.sh", "hosts.function = \"m3o.sh\""),
        ("user.m3o.com/", "hosts.user = \"user.m3o.com\""),
        ("m3o.com/promo", "hosts.url = \"m3o.com\""),
        // By their path alone.
        ("m3o.one/u/a", ""),
        ("x.m3o.one/u/a", ""),
        ("m3o.one/api/a/b", ""),
        ("m3o.app/v1/a/b", ""),
        ("any.example/user/token", ""),
        ("m3o.app/nothing", ""),
        ("x.m3o.one/nothing", ""),
    ] {
        assert_eq!(
            keys_of("route", &question(url), &sources),
            expected,
            "{url}"
        );
    }
}

#[test]
fn only_keys_that_decide_on_https_are_told() {
    let rules = "
[https]
hsts = '1d'
[https.domains.'m3o.app']
redirect = true
[https.domains.'old.m3o.app']
redirect = false
[https.listeners.'127.0.0.1:80']
hsts_subdomains = true
";
    let sources = sources(rules);
    let check = |url: &str, expected: &str| {
        assert_eq!(
            keys_of("https", &question(url), &sources),
            expected,
            "{url}"
        );
    };
    check("blog.m3o.app", "https.domains.\"m3o.app\".redirect = true");
    check(
        "old.m3o.app",
        "https.domains.\"old.m3o.app\".redirect = false",
    );
    check("m3o.one/x", "https.redirect = false");
    let mut behind = question("blog.m3o.app");
    behind.from = Some("10.1.2.3".parse().unwrap());
    behind.headers = vec!["X-Forwarded-Proto: https".to_owned()];
    assert_eq!(
        keys_of("https", &behind, &sources),
        "https.hsts = 1d, https.listeners.\"127.0.0.1:80\".hsts_subdomains = true, https.hsts_preload = false"
    );
}

/// By a configuration that serves HTTPS.
fn secure(more: &str) -> Sources {
    let listen = "http = '127.0.0.1:80'";
    let secure = format!("{listen}\nhttps = '127.0.0.1:443'");
    let text = format!("{more}\n{CONFIG}").replace(listen, &secure);
    of_configuration(&Config::parse("f", &text, &Environment::default()).unwrap())
}

fn certificate(label: &str, name: &str) -> Arc<Certificate> {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let chain = parameters.self_signed(&key).unwrap().pem();
    let key = key.serialize_pem();
    Arc::new(Certificate::from_pem(label, chain.as_bytes(), key.as_bytes()).unwrap())
}

#[test]
fn https_needs_a_certificate() {
    let explained = explained(&question("https://blog.m3o.app"), &secure("")).unwrap();
    assert_eq!(explained.answer.status, None);
    assert!(explained.answer.text.contains("unrecognized_name"));
    assert_eq!(explained.steps[2].what, "none");
}

#[test]
fn a_certificate_is_found_as_in_a_handshake() {
    let keyring = Keyring::with_fallback("main");
    let sources = |on_demand: bool| Sources {
        keyring: Some(Arc::clone(&keyring)),
        on_demand,
        ..secure("")
    };
    let check = |url: &str, on_demand, what: &str, by: &str, text: &str| {
        let explained = explained(&question(url), &sources(on_demand)).unwrap();
        let step = &explained.steps[2];
        assert_eq!(step.name, "certificate", "{url}");
        assert!(step.what.starts_with(what), "{url}: {}", step.what);
        assert_eq!(step.by.join(", "), by, "{url}");
        let answer = &explained.answer.text;
        assert!(answer.starts_with(text), "{url}: {answer}");
    };
    let files = vec![
        certificate("blog", "blog.m3o.app"),
        certificate("here", "127.0.0.1"),
        certificate("there", "::1"),
    ];
    keyring.put(Source::Files, files.clone());
    for on_demand in [false, true] {
        let found = "what the backend answers";
        check("https://blog.m3o.app", on_demand, "blog: ", "tls", found);
        // RFC 6066, 3: whoever goes to an address names no host, and may ask for any.
        check("https://127.0.0.1", on_demand, "here: ", "tls", "no route");
        check("https://[::1]/", on_demand, "there: ", "tls", "no route");
    }
    let ordered = "tls.acme.on_demand = true";
    check(
        "https://x.m3o.app",
        true,
        "none yet",
        ordered,
        "none before",
    );
    check(
        "https://192.0.2.1",
        true,
        "none",
        "tls.certs, tls.default",
        "none: ",
    );

    let main = certificate("main", "other.example");
    keyring.put(Source::Files, [files, vec![main]].concat());
    let both = "tls.acme.on_demand = true, tls.default = \"main\"";
    check("https://x.m3o.app", true, "none yet: ", both, "by whether");
    let wrong = "the certificate of the connection does not";
    check("https://x.m3o.app", false, "main: ", "tls.default", wrong);
    check(
        "https://192.0.2.1",
        true,
        "main: ",
        "tls.default",
        "no route",
    );
}

#[test]
fn certificates_that_are_not_read_are_said_to_be() {
    let acme = "[tls.acme]\ndirectory = 'https://ca.example/d'\nagree = true\nfolder = 'acme'";
    let explained = explained(&question("https://blog.m3o.app"), &secure(acme)).unwrap();
    let step = &explained.steps[2];
    assert_eq!((&*step.name, &*step.by[0]), ("certificate", "tls.acme"));
    assert!(step.what.contains("are not read"), "{}", step.what);
    assert_eq!(explained.answer.status, None);
    assert!(
        explained
            .answer
            .text
            .starts_with("what the backend answers")
    );
}
