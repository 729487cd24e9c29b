//! Each mistake with the words that its writer reads.

use super::*;

mod rates;
mod reading;

/// A configuration with no mistake in it, three lines long.
const FINE: &str = "listen.http = '127.0.0.1:8080'\n[api]\naddress = 'https://api.m3o.com'\n";

fn problems_with(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let environment = variables.iter().copied().collect();
    match Config::parse("f", text, &environment) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// `text` behind three fine lines has these problems.
fn check(text: &str, expected: &[&str]) {
    assert_eq!(
        problems_with(&format!("{FINE}{text}"), &[]),
        expected,
        "{text}"
    );
}

fn check_whole(text: &str, expected: &[&str]) {
    assert_eq!(problems_with(text, &[]), expected, "{text}");
}

fn check_variable(name: &str, value: &str, expected: &[&str]) {
    assert_eq!(
        problems_with(FINE, &[(name, value)]),
        expected,
        "{name}={value}"
    );
}

#[test]
fn what_is_no_toml_ends_it_with_line_and_column() {
    check(
        "[log]\nlevel \"info\"\n",
        &["f:5:7: this is not TOML: key with no value, expected `=`"],
    );
    check("[api]\n", &["f:4:2: this is not TOML: duplicate key"]);
}

#[test]
fn an_unknown_key_gets_a_hint() {
    check(
        "adress = 1",
        &["f:4:1: unknown key `adress`; did you mean `address`?"],
    );
    check(
        "colour = 1",
        &["f:4:1: unknown key `colour`; what may stand here is `address` or `token_env`"],
    );
    check(
        "[timeouts]\nheadr = '1s'",
        &["f:5:1: unknown key `headr`; did you mean `header`?"],
    );
    check(
        "[platform.mial]",
        &[
            "f:4:2: [platform] needs the key `store`: write it like `store = \"data/platform.redb\"`",
            "f:4:11: unknown key `mial`; did you mean `mail`?",
        ],
    );
    check(
        "[limit]\nuri = 1",
        &["f:4:2: unknown key `limit`; did you mean `limits`?"],
    );
}

#[test]
fn a_misspelt_key_is_not_also_a_missing_one() {
    let listen = "listen.http = '127.0.0.1:8080'\n";
    check_whole(
        &format!("{listen}[api]\nadress = 'https://a.example'"),
        &["f:3:1: unknown key `adress`; did you mean `address`?"],
    );
    check_whole(
        &format!("{listen}[apy]\naddress = 'https://a.example'"),
        &["f:2:2: unknown key `apy`; did you mean `api`?"],
    );
    check_whole(
        "[lisen]\n[api]\naddress = 'https://a.example'",
        &["f:1:2: unknown key `lisen`; did you mean `listen`?"],
    );
    check_whole(
        &format!("{listen}[api]\naddress = 'gopher://a.example'"),
        &[
            "f:3:11: api.address: `gopher://a.example` is no address of an API: the scheme is neither http nor https; write it like \"https://api.m3o.com\"",
        ],
    );
}

#[test]
fn a_missing_key_is_named_with_an_example() {
    check_whole(
        "listen.http = '127.0.0.1:8080'\n[api]",
        &[
            "f:2:1: [api] needs the key `address`: write it like `address = \"https://api.m3o.com/\"`",
        ],
    );
    check_whole(
        "listen.http = '127.0.0.1:8080'\n[platform]\nstore = 's'\n[platform.mail]\nfrom = 'a@b'",
        &[
            "f:4:1: [platform.mail] needs the key `smtp_url_env`: write it like `smtp_url_env = \"SMTP_URL\"`",
        ],
    );
}

#[test]
fn a_value_that_does_not_fit_says_what_would() {
    let timeouts = |value: &str, expected: &str| {
        let expected = format!("f:5:10: timeouts.header: {expected}");
        check(&format!("[timeouts]\nheader = {value}"), &[&expected]);
    };
    timeouts(
        "'10'",
        "`10` is no duration: write it like \"250ms\", \"30s\", \"10m\" or \"24h\"",
    );
    timeouts(
        "10",
        "`10` stands where a text belongs: write it like `header = \"10s\"`",
    );
    timeouts(
        "['10s']",
        "a list stands where a text belongs: write it like `header = \"10s\"`",
    );
    check(
        "[limits]\nheaders = -1",
        &[
            "f:5:11: limits.headers: `-1` stands where a whole number from 0 up belongs: write it like `headers = 128`",
        ],
    );
    check(
        "[limits]\nheaders = 99999999999999999999",
        &[
            "f:5:11: limits.headers: `99999999999999999999` stands where a whole number from 0 up belongs: write it like `headers = 128`",
        ],
    );
    check(
        "[limits]\nuri = true",
        &[
            "f:5:7: limits.uri: `true` stands where a size like \"64KiB\", \"10MiB\", or a number of bytes belongs",
        ],
    );
    check(
        "[limits]\nuri = -1",
        &[
            "f:5:7: limits.uri: `-1` stands where a size like \"64KiB\", \"10MiB\", or a number of bytes belongs",
        ],
    );
    check(
        "[index]\nenabled = 'yes'",
        &[
            "f:5:11: index.enabled: `yes` stands where true or false belongs: write it like `enabled = false`",
        ],
    );
    check(
        "[log]\nformat = 'xml'",
        &[
            "f:5:10: log.format: `xml` is not known here: write \"auto\", \"human\", \"json\" or \"combined\"",
        ],
    );
    check(
        "[log]\nformat = 1",
        &["f:5:10: log.format: `1` stands where a text belongs: write it like `format = \"auto\"`"],
    );
    check(
        "[[log]]",
        &["f:4:1: log: a list stands where a section belongs: write `[log]` above its keys"],
    );
    check(
        "[hosts]\napp = 'm3o.app:80'",
        &["f:5:7: hosts.app: `m3o.app:80` has a port: a host is configured by its name alone"],
    );
    check(
        "[backends]\ndns = ['9.9.9.9', 'dns.example']",
        &[
            "f:5:19: backends.dns: `dns.example` is no address of a name server: write it like \"9.9.9.9\" or \"127.0.0.1:5353\"",
        ],
    );
    check(
        "[backends]\ntrusted_proxies = ['10.0.0.0/99']",
        &[
            "f:5:20: backends.trusted_proxies: `10.0.0.0/99` is no network: write it like \"10.0.0.0/8\" or \"fd00::/8\"",
        ],
    );
}

#[test]
fn what_is_written_for_another_kind_of_address_says_what_to_change() {
    check(
        "[hosts]\nfunction = 'https://m3o.sh'",
        &["f:5:12: hosts.function: `https://m3o.sh` is no host name: leave `https://` out"],
    );
    for any in ["'*'", "['*']"] {
        let problems = problems_with(&format!("{FINE}[user]\nredirect_hosts = {any}"), &[]);
        assert_eq!(problems.len(), 1);
        let words = "user.redirect_hosts: `*` is no host name: leave the list empty for any host";
        assert!(problems[0].ends_with(words), "{problems:?}");
    }
    for (address, like) in [
        ("api.m3o.com", "api.m3o.com"),
        ("localhost:8080", "localhost:8080"),
        ("canary:secret@api.m3o.com", "api.m3o.com"),
    ] {
        let text = format!("listen.http = '127.0.0.1:8080'\napi.address = '{address}'");
        let expected = format!(
            "f:2:15: api.address: `{like}` is no address of an API: the scheme is missing; write it like \"https://{like}\""
        );
        check_whole(&text, &[&expected]);
    }
}

#[test]
fn every_bad_element_of_a_list_is_found() {
    check_whole(
        "[api]\naddress = 'https://a.example'\n[listen]\nhttp = ['localhost:80', '127.0.0.1:80', 5]\n[hosts]\napp = ['a', '.b', '.b', '']",
        &[
            "f:4:9: listen.http: `localhost:80` is no address: write an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "f:4:41: listen.http: `5` stands where a text belongs: write it like `http = [\"127.0.0.1:8080\"]`",
            "f:6:13: hosts.app: `.b` has an empty label: write `m3o.app`, without a dot in front",
            "f:6:19: hosts.app: `.b` has an empty label: write `m3o.app`, without a dot in front",
            "f:6:25: hosts.app: `` is no host name: the host is empty",
        ],
    );
}

#[test]
fn three_mistakes_are_three_problems_in_order() {
    check(
        "[timeouts]\nidle = '0s'\nheader = '10'\n[limts]\n",
        &[
            "f:5:8: timeouts.idle: `0s` leaves no time at all",
            "f:6:10: timeouts.header: `10` is no duration: write it like \"250ms\", \"30s\", \"10m\" or \"24h\"",
            "f:7:2: unknown key `limts`; did you mean `limits`?",
        ],
    );
}

#[test]
fn one_api_and_a_listener_are_needed() {
    check_whole(
        "",
        &[
            "f: neither [api] nor [platform] is there: name a remote M3O API, or a store for the embedded platform",
            "f: listen.http: there is nothing to listen on: write it like `http = \"127.0.0.1:8080\"`",
        ],
    );
    check(
        "[platform]\nstore = 's'",
        &["f:4:1: platform: [api] and [platform] exclude each other: leave one of them out"],
    );
    check_whole(
        "[api]\naddress = 'https://a.example'\n[listen]\nhttps = '127.0.0.1:8443'",
        &[],
    );
}

#[test]
fn the_folder_of_certificates_is_looked_at_now_and_then() {
    check(
        "[tls]\nwatch = '10ms'\ncerts = '/etc/certs'\ndefault = 'main'",
        &[],
    );
    check(
        "[tls]\nwatch = '1ms'",
        &["f:5:9: tls.watch: `1ms` leaves no time for anything else: it is at least 10ms"],
    );
    check(
        "[reload]\nwatch = true\nevery = '1ms'",
        &["f:6:9: reload.every: `1ms` leaves no time for anything else: it is at least 10ms"],
    );
    check(
        "[tls]\ncert = 'x'",
        &["f:5:1: unknown key `cert`; did you mean `certs`?"],
    );
}

#[test]
fn listeners_do_not_collide_and_admin_stays_inside() {
    let listen = |listen: &str, expected: &[&str]| {
        let text = format!("[api]\naddress = 'https://a.example'\n[listen]\n{listen}");
        check_whole(&text, expected);
    };
    listen(
        "http = ['127.0.0.1:0', '127.0.0.1:0']\nadmin = '127.0.0.1:0'",
        &[],
    );
    listen(
        "http = ['127.0.0.1:1', '[::1]:1', '127.0.0.1:1']",
        &["f:4:35: listen.http: `127.0.0.1:1` is there twice"],
    );
    listen(
        "http = '127.0.0.1:1'\nadmin = '127.0.0.1:1'",
        &["f:5:9: listen.admin: `127.0.0.1:1` is a public listener too: take another port"],
    );
    listen(
        "http = '127.0.0.1:1'\nadmin = '0.0.0.0:2'",
        &[
            "f:5:9: listen.admin: `0.0.0.0:2` can be reached from outside: health and metrics are served on a loopback address only, like \"127.0.0.1:8090\"",
        ],
    );
    listen(
        "http = '127.0.0.1:1'\nworkers = 1025",
        &["f:5:11: listen.workers: `1025` is too many: it is at most 1024"],
    );
}

#[test]
fn there_are_no_more_series_than_a_server_of_metrics_can_keep() {
    check("[metrics]\napps = 0\ncombinations = 0", &[]);
    check("[metrics]\napps = 2\nalways = ['blog', 'shop']", &[]);
    check(
        "[metrics]\napps = 1001\ncombinations = 4097",
        &[
            "f:5:8: metrics.apps: `1001` is too many: it is at most 1000",
            "f:6:16: metrics.combinations: `4097` is too many: it is at most 4096",
        ],
    );
    check(
        "[metrics]\napps = 1\nalways = ['blog', 'shop']",
        &[
            "f:6:10: metrics.always: there are more names than `metrics.apps`, 1, which they are among",
        ],
    );
    check(
        "[metrics]\nalways = ['Blog']",
        &[
            "f:5:11: metrics.always: `Blog` is no name of an app: an id has 1 to 63 characters of a-z, 0-9 and -, with no hyphen at either end",
        ],
    );
}

#[test]
fn a_host_name_leads_to_one_kind() {
    check("[hosts]\nurl = []", &[]);
    check(
        "[hosts]\nurl = 'a.example'\nuser = ['b.example', 'A.example']",
        &["f:6:22: hosts.user: `a.example` is a name of `url` too: a name leads to one kind"],
    );
    check(
        "[hosts]\napp = 'm3o.one'",
        &["f:5:7: hosts.app: `m3o.one` is a name of `url` too: a name leads to one kind"],
    );
}

#[test]
fn the_platform_needs_a_host_of_every_kind_for_its_links() {
    let platform = |hosts: &str, expected: &[&str]| {
        let text =
            format!("listen.http = '127.0.0.1:8080'\nplatform.store = 's'\n[hosts]\n{hosts}");
        check_whole(&text, expected);
    };
    platform(
        "app = []\nuser = []",
        &[
            "f:4:7: hosts.app: it is empty, but [platform] makes links with its first name: name a host, or leave the key out for its default",
            "f:5:8: hosts.user: it is empty, but [platform] makes links with its first name: name a host, or leave the key out for its default",
        ],
    );
    platform("app = ['app.localhost', 'm3o.app']", &[]);
    platform(
        "app = ['a b']",
        &[
            "f:4:8: hosts.app: `a b` is no host name: the host has a character that no host name has",
        ],
    );
}

#[test]
fn mail_needs_a_sender_that_can_be_answered() {
    let from = |from: &str, expected: &[&str]| {
        let text = format!(
            "listen.http = '127.0.0.1:8080'\nplatform.store = 's'\n[platform.mail]\nsmtp_url_env = 'SMTP_URL'\nfrom = '{from}'"
        );
        check_whole(&text, expected);
    };
    for wrong in ["@", "noreply", "noreply@", "@m3o.one", "A <a@m3o.one>", ""] {
        let expected = format!(
            "f:5:8: platform.mail.from: `{wrong}` is no mail address: write it like \"noreply@m3o.one\""
        );
        from(wrong, &[&expected]);
    }
    from("noreply@m3o.one", &[]);
}

#[test]
fn a_limit_that_lets_nothing_through_is_refused() {
    check(
        "[limits]\nheader = 1023\nheaders = 0\nuri = 63\nform = 0\nbody = 0\nconnections = 0\nper_peer = 0\nper_workload = 0\nstreams = 0\n[cache]\ncapacity = 0\nlookups = 0\nfresh = '0s'\n[backends]\nconnections = 0\nper_backend = 0",
        &[
            "f:5:10: limits.header: `1023B` is too small: it is at least 1KiB",
            "f:6:11: limits.headers: `0` lets nothing through: it is at least 1",
            "f:7:7: limits.uri: `63B` is too small: it is at least 64B",
            "f:8:8: limits.form: `0B` is too small: it is at least 1B",
            "f:10:15: limits.connections: `0` lets nothing through: it is at least 1",
            "f:11:12: limits.per_peer: `0` lets nothing through: it is at least 1",
            "f:12:16: limits.per_workload: `0` lets nothing through: it is at least 1",
            "f:13:11: limits.streams: `0` lets nothing through: it is at least 1",
            "f:15:12: cache.capacity: `0` is no number of entries: it is at least 1",
            "f:16:11: cache.lookups: `0` lets nothing through: it is at least 1",
            "f:19:15: backends.connections: `0` lets nothing through: it is at least 1",
            "f:20:15: backends.per_backend: `0` lets nothing through: it is at least 1",
        ],
    );
    check(
        "[limits]\nuri = '64KiB'",
        &["f:5:7: limits.uri: `64KiB` is more than `limits.header`, 32KiB, which it is a part of"],
    );
}

#[test]
fn authorities_must_be_there_and_hold_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let name = file.display();
    let text = format!("[backends]\nca = '{name}'");
    check(
        &text,
        &[&format!(
            "f:5:6: backends.ca: `{name}` cannot be read: I/O error: No such file or directory (os error 2)"
        )],
    );
    std::fs::write(&file, "nothing here").unwrap();
    check(
        &text,
        &[&format!(
            "f:5:6: backends.ca: `{name}` holds no certificate in PEM form"
        )],
    );
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    std::fs::write(&file, made.cert.pem()).unwrap();
    check(&text, &[]);
}

#[test]
fn a_secret_in_place_of_its_variable_is_not_printed() {
    let problems = problems_with(&format!("{FINE}token_env = 'canary-secret'"), &[]);
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].contains("canary"), "{problems:?}");
}

#[test]
fn a_misspelt_or_missing_key_does_not_silence_its_neighbours() {
    let listen = "listen.http = '127.0.0.1:8080'\n";
    let no_name = "this is no name of an environment variable: the secret itself does not belong here, but the name of the variable that holds it";
    check_whole(
        &format!("{listen}[api]\nadress = 'https://a.example'\ntoken_env = 'sk-live-1234'"),
        &[
            "f:3:1: unknown key `adress`; did you mean `address`?",
            &format!("f:4:13: api.token_env: {no_name}"),
        ],
    );
    check_whole(
        &format!("{listen}[platform]\nkey_env = 'sk-live-1234'\n[platform.mail]\nfrom = 'a'"),
        &[
            "f:2:1: [platform] needs the key `store`: write it like `store = \"data/platform.redb\"`",
            &format!("f:3:11: platform.key_env: {no_name}"),
            "f:4:1: [platform.mail] needs the key `smtp_url_env`: write it like `smtp_url_env = \"SMTP_URL\"`",
            "f:5:8: platform.mail.from: `a` is no mail address: write it like \"noreply@m3o.one\"",
        ],
    );
}

#[test]
fn the_environment_stands_over_the_file() {
    let environment = [
        ("M3O_INGRESS_TIMEOUTS__HEADER", "5s"),
        ("M3O_INGRESS_LISTEN__HTTP", "0.0.0.0:8080, [::]:8080"),
        ("M3O_INGRESS_LISTEN__WORKERS", "2"),
        ("M3O_INGRESS_INDEX__ENABLED", "true"),
        ("M3O_INGRESS_LIMITS__URI", "4096"),
        ("M3O_INGRESS_CONFIG", "elsewhere"),
    ];
    let config = Config::parse("f", FINE, &environment.into_iter().collect()).unwrap();
    assert_eq!(config.timeouts.header.as_secs(), 5);
    assert_eq!(config.listen.http.len(), 2);
    assert_eq!(config.listen.workers, 2);
    assert_eq!(config.limits.uri, 4096);
    assert!(config.index.enabled);
}

#[test]
fn a_mistake_in_the_environment_names_its_variable() {
    check_variable(
        "M3O_INGRESS_TIMEOUTS__HEADR",
        "5s",
        &[
            "M3O_INGRESS_TIMEOUTS__HEADR: no key has this name; did you mean `M3O_INGRESS_TIMEOUTS__HEADER`?",
        ],
    );
    check_variable(
        "M3O_INGRESS_PLATFORM__MAIL",
        "x",
        &[
            "M3O_INGRESS_PLATFORM__MAIL: no key has this name; the keys are those of the file, `M3O_INGRESS_<SECTION>__<KEY>`",
        ],
    );
    check_variable(
        "M3O_INGRESS_TIMEOUTS__HEADER",
        "0s",
        &["M3O_INGRESS_TIMEOUTS__HEADER: timeouts.header: `0s` leaves no time at all"],
    );
    check_variable(
        "M3O_INGRESS_LISTEN__HTTP",
        "0.0.0.0:80,x",
        &[
            "M3O_INGRESS_LISTEN__HTTP: listen.http: `x` is no address: write an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"",
        ],
    );
    check_variable(
        "M3O_INGRESS_LIMITS__HEADERS",
        "many",
        &[
            "M3O_INGRESS_LIMITS__HEADERS: limits.headers: `many` stands where a whole number from 0 up belongs: write it like `headers = 128`",
        ],
    );
    check_variable(
        "M3O_INGRESS_PLATFORM__MAIL__FROM",
        "a@b",
        &[
            "M3O_INGRESS_PLATFORM__MAIL__FROM: [platform.mail] needs the key `smtp_url_env`: write it like `smtp_url_env = \"SMTP_URL\"`",
            "M3O_INGRESS_PLATFORM__MAIL__FROM: [platform] needs the key `store`: write it like `store = \"data/platform.redb\"`",
        ],
    );
}

#[test]
fn a_variable_that_misses_an_underscore_says_so() {
    check_variable(
        "M3O_INGRESS_LIMITS_HEADERS",
        "9",
        &[
            "M3O_INGRESS_LIMITS_HEADERS: no key has this name; did you mean `M3O_INGRESS_LIMITS__HEADERS`?",
        ],
    );
    check_variable(
        "M3O_INGRESS_LISTN_HTTP",
        "9",
        &["M3O_INGRESS_LISTN_HTTP: no key has this name; did you mean `M3O_INGRESS_LISTEN__HTTP`?"],
    );
    check_variable(
        "M3O_INGRESS_PLATFORM_MAIL__FROM",
        "a@b",
        &[
            "M3O_INGRESS_PLATFORM_MAIL__FROM: no key has this name; did you mean `M3O_INGRESS_PLATFORM__MAIL__FROM`?",
        ],
    );
}

#[test]
fn variables_that_are_something_else_are_let_be() {
    for name in [
        "M3O_INGRESS_CONFIG",
        "M3O_INGRESS_LOG_FORMAT",
        "M3O_INGRESS_LOG_LEVEL",
        // Kubernetes sets these where a service is called `m3o-ingress`, or `m3o-ingress-api`.
        "M3O_INGRESS_SERVICE_HOST",
        "M3O_INGRESS_PORT",
        "M3O_INGRESS_PORT_8080_TCP_ADDR",
        "M3O_INGRESS_API_SERVICE_HOST",
        "M3O_INGRESS_API_PORT",
        "M3O_INGRESSLIMITS__HEADERS",
        "M3O_API_TOKEN",
    ] {
        check_variable(name, "x", &[]);
    }
    // A secret may be called as one likes.
    let named = format!("{FINE}token_env = 'M3O_INGRESS_LIMITS_URI'");
    for name in ["M3O_INGRESS_LIMITS_URI", "M3O_INGRESS_LIMITS_URI_FILE"] {
        assert_eq!(problems_with(&named, &[(name, "x")]), [""; 0]);
    }
}

#[test]
fn a_proxy_header_is_asked_for_where_we_listen_and_of_somebody() {
    let listen = |text: &str, expected: &[&str]| {
        let text = format!(
            "api.address = 'https://a.example'\nlisten.http = ['127.0.0.1:1', '[::1]:1']\n{text}"
        );
        check_whole(&text, expected);
    };
    let trusted = "backends.trusted_proxies = '10.0.0.0/8'\n";
    listen(
        &format!("{trusted}listen.proxy_protocol = ['[::1]:1', '127.0.0.1:1']"),
        &[],
    );
    listen(
        &format!("{trusted}listen.proxy_protocol = ['127.0.0.1:1', '127.0.0.1:2']"),
        &[
            "f:4:41: listen.proxy_protocol: `127.0.0.1:2` is no address of `http` or `https`: write one of them as it stands there",
        ],
    );
    listen(
        "listen.proxy_protocol = '[::1]:1'",
        &[
            "f:3:25: listen.proxy_protocol: nobody could connect: name the load balancers in `backends.trusted_proxies`, like [\"10.0.0.0/8\"]",
        ],
    );
}

#[test]
fn tables_whose_keys_are_names_have_their_mistakes_found() {
    let https = |text: &str, expected: &[&str]| check(&format!("[https]\n{text}"), expected);
    https(
        "domains.'m3o.app'.redirect = true\nlisteners.'127.0.0.1:8080'.hsts = '1d'",
        &[],
    );
    https(
        "domains.'m3o.app'.redirct = true\ndomains.'m3o.sh'.port = 1",
        &[
            "f:5:19: unknown key `redirct`; did you mean `redirect`?",
            "f:6:18: unknown key `port`; what may stand here is `redirect`, `hsts`, `hsts_subdomains` or `hsts_preload`",
        ],
    );
    https(
        "domains.'m3o.app'.redirect = 'yes'\ndomains.'m3o.app'.hsts = 'long'",
        &[
            "f:5:30: https.domains.\"m3o.app\".redirect: `yes` stands where true or false belongs: write it like `redirect = true`",
            "f:6:26: https.domains.\"m3o.app\".hsts: `long` is no duration: write it like \"250ms\", \"30s\", \"10m\" or \"24h\"",
        ],
    );
    https(
        "domains.'m3o.app:80'.redirect = true\ndomains.'m3o.sh' = 5\nlisteners = 7",
        &[
            "f:5:9: https.domains: `m3o.app:80` has a port: a host is configured by its name alone",
            "f:6:20: https.domains.\"m3o.sh\": `5` stands where a section belongs: write `[https.domains.\"m3o.sh\"]` above its keys",
            "f:7:13: https.listeners: `7` stands where a section belongs: write `[https.listeners]` above its keys",
        ],
    );
    https(
        "listeners.'127.0.0.1:8081'.redirect = true\nlisteners.'localhost:80'.redirect = true\nport = 0",
        &[
            "f:5:11: https.listeners.\"127.0.0.1:8081\": `127.0.0.1:8081` is no address of `listen.http` or `listen.https`: write one of them as it stands there",
            "f:6:11: https.listeners: `localhost:80` is no address: write an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "f:7:8: https.port: `0` is no port: it is at least 1",
        ],
    );
    let unlisted = "browsers list only names with `hsts_subdomains = true` and an `hsts` of \"365d\" or longer";
    https(
        "redirect = true\nhsts_preload = true",
        &[&format!("f:6:16: https.hsts_preload: {unlisted}")],
    );
    check_variable(
        "M3O_INGRESS_HTTPS__REDIRCT",
        "true",
        &[
            "M3O_INGRESS_HTTPS__REDIRCT: no key has this name; did you mean `M3O_INGRESS_HTTPS__REDIRECT`?",
        ],
    );
    check_variable("M3O_INGRESS_HTTPS__DOMAINS__M3O.APP__REDIRECT", "true", &[]);
}

#[test]
fn logs_and_traces_have_their_mistakes_found() {
    check(
        "[log]\nsample = 2\naccess_file = '/nowhere/access.log'\nbuffer = 1\nslow = 'long'",
        &[
            "f:5:10: log.sample: `2` is no share: write it like 0.05, \"5%\" or \"1/20\"",
            "f:6:15: log.access_file: there is no folder `/nowhere` for it",
            "f:7:10: log.buffer: `1B` is too small: it is at least 16KiB",
            "f:8:8: log.slow: `long` is no duration: write it like \"250ms\", \"30s\", \"10m\" or \"24h\"",
        ],
    );
    check(
        "[log]\naccess_file = '/'",
        &["f:5:15: log.access_file: `/` is a folder: name a file in it"],
    );
    check("[log]\naccess_file = 'access.log'\nsample = '1/100'", &[]);
    check(
        "[tracing]\nsample = '1/0'\nqueue = 0\nbatch = 2\ndelay = '0s'",
        &[
            "f:5:10: tracing.sample: `1/0` is no share: write it like 0.05, \"5%\" or \"1/20\"",
            "f:6:9: tracing.queue: `0` lets nothing through: it is at least 1",
            "f:7:9: tracing.batch: `2` is more than `tracing.queue`, 0, which it is taken from",
            "f:8:9: tracing.delay: `0s` leaves no time to collect any: it is at least 10ms",
        ],
    );
    check_variable("M3O_INGRESS_LOG__SAMPLE", "1/100", &[]);
    check_variable("M3O_INGRESS_TRACING__SAMPLE", "0.5", &[]);
    check_variable("M3O_INGRESS_LOG__SAMPLE", "1", &[]);
}
