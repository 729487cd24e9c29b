//! `m3o-ingress dev`: everything that its table says, done with curl.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::caller::{api, get};
use crate::process::{Ingress, command, dev_command, ended};

/// The table that a process printed, its lines by their names.
struct Table(Vec<String>);

impl Table {
    fn of(ingress: &Ingress) -> Self {
        let text = ingress.process.wrote("its table", |text| {
            Some(text.split_once("/metrics\n")?.0.to_owned() + "/metrics")
        });
        Self(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// What stands beside `name`.
    #[track_caller]
    fn line(&self, name: &str) -> &str {
        let line = self.0.iter().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
            .trim()
    }

    /// What stands below `name`, after `then`.
    #[track_caller]
    fn then(&self, name: &str) -> &str {
        let at = self
            .0
            .iter()
            .position(|line| line.starts_with(name))
            .unwrap();
        self.0[at + 1].strip_prefix("then ").unwrap()
    }
}

/// What a shell prints that is given `line`.
#[track_caller]
fn shell(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Opens a link, as a click does: the answer's head and body.
#[track_caller]
fn open(link: &str) -> String {
    shell(&format!("curl -sS --include --max-time 20 '{link}'"))
}

#[track_caller]
fn check_status(answer: &str, status: &str) {
    let line = answer.lines().next().unwrap_or_default();
    assert!(line.contains(status), "{answer}");
}

fn location(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then(|| value.trim())
    })
}

#[test]
fn every_line_of_the_table_works_when_it_is_pasted_or_clicked() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let table = Table::of(&ingress);
    assert!(table.0.iter().any(|line| line.contains("API key is `dev`")));
    for name in ["an app", "all apps", "a function"] {
        let port = format!(":{}/", ingress.http.port());
        assert!(table.line(name).contains(&port), "the ports really bound");
    }

    let app = open(table.line("an app"));
    check_status(&app, "200");
    assert!(app.contains("Hello from"), "{app}");
    let apps = open(table.line("all apps"));
    check_status(&apps, "200");
    assert!(
        apps.contains(table.line("an app").trim_end_matches('/')),
        "{apps}"
    );
    let function = open(table.line("a function"));
    check_status(&function, "200");
    assert!(function.contains("Alice"), "{function}");
    assert_eq!(shell(table.line("the API")), r#"{"message":"Hello John"}"#);

    assert!(shell(table.line("a short link")).contains("/u/hello"));
    let followed = open(table.then("a short link"));
    check_status(&followed, "302");
    assert_eq!(location(&followed), Some("https://example.com/"));

    check_status(&open(table.line("health")), "200");
    let metrics = open(table.line("metrics"));
    assert!(
        metrics.contains("http_server_request_duration_seconds"),
        "{metrics}"
    );
    let live = table.line("health").replace("readyz", "livez");
    check_status(&open(&live), "200");
    let written = ingress.stop();
    for level in ["ERROR", "WARN"] {
        assert!(!written.contains(level), "{written}");
    }
}

#[test]
fn https_works_for_whoever_trusts_the_local_authority() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let path = |what: &str| {
        let printed = ended(&mut command(&["dev", "--ca", "--data", data]));
        assert!(printed.status.success(), "{what}: {}", printed.text);
        printed.text.trim().to_owned()
    };
    // Made before the first start, and kept.
    let authority = path("made");
    let made = std::fs::read(&authority).unwrap();
    let ingress = Ingress::dev(folder.path());
    let table = Table::of(&ingress);
    assert_eq!(path("kept"), authority);
    assert_eq!(std::fs::read(&authority).unwrap(), made);

    let link = table.line("over HTTPS");
    let port = link.split(':').nth(2).unwrap().trim_end_matches('/');
    let ask = |host: &str, more: &str| {
        shell(&format!(
            "curl -sS --include --max-time 20 --cacert '{authority}' --resolve '{host}:{port}:127.0.0.1' {more} 'https://{host}:{port}/'"
        ))
    };
    for host in ["helloworld.app.localhost", "helloworld.m3o.app"] {
        for version in ["--tls-max 1.2", "--tlsv1.3"] {
            let app = ask(host, version);
            check_status(&app, "200");
            assert!(app.contains("Hello from"), "{app}");
        }
    }
    check_status(&ask("helloworld.fn.localhost", ""), "200");
    for host in ["127.0.0.1", "localhost"] {
        let call = format!("https://{host}:{port}/api/helloworld/call?api_key=dev&name=A");
        let said = shell(&format!("curl -sS --cacert '{authority}' '{call}'"));
        assert_eq!(said, r#"{"message":"Hello A"}"#);
    }
    // Two hosts of one certificate over one connection, and one that it does not speak for.
    check_status(
        &ask("localhost", "-H 'Host: helloworld.app.localhost'"),
        "200",
    );
    check_status(&ask("localhost", "-H 'Host: other.example'"), "421");
    // Nobody else believes it.
    let stranger = format!("curl -s --max-time 20 'https://localhost:{port}/' || echo refused");
    assert_eq!(shell(&stranger).trim(), "refused");
    ingress.stop();
}

#[test]
fn a_first_start_has_nothing_to_warn_of() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new");
    let ingress = Ingress::start(&mut dev_command(&new));
    get(ingress.http, "helloworld.app.localhost", "/");
    let text = ingress.stop();
    for level in ["WARN", "ERROR"] {
        assert!(!text.contains(level), "{text}");
    }
}

#[test]
fn the_verification_mail_is_sent_opened_and_spent_once() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let table = Table::of(&ingress);
    assert!(!open(table.line("mailbox")).contains("alice@example.com"));
    assert_eq!(shell(table.line("verification")), "{}");

    let mailbox = open(table.line("mailbox"));
    assert!(
        mailbox.contains("alice@example.com") && mailbox.contains("Welcome"),
        "{mailbox}"
    );
    let link = link_in(&mailbox, "http://user.localhost");
    check_status(&shell(&format!("curl -sS --head '{link}'")), "200");
    let spent = open(&link);
    check_status(&spent, "302");
    let onward = location(&spent).unwrap();
    assert_eq!(onward, table.line("an app"));
    check_status(&open(onward), "200");

    let again = shell(&format!(
        "curl -sS --include -H 'Accept: text/html' '{link}'"
    ));
    assert_eq!(location(&again), None, "no open redirect");
    check_status(&again, "400");
    let (_, onward) = again.split_once("<a href=\"").unwrap();
    let (onward, _) = onward.split_once('"').unwrap();
    check_status(&open(onward), "200");
}

#[test]
fn a_second_start_finds_what_the_first_one_kept() {
    let folder = tempfile::tempdir().unwrap();
    let first = Ingress::dev(folder.path());
    let link = json!({"id": "kept", "destinationURL": "https://example.com/kept"});
    api(first.http, "dev", "url/create", &link).fine();
    let table = Table::of(&first);
    assert_eq!(table.line("data"), folder.path().to_str().unwrap());
    assert!(shell(table.line("a short link")).contains("/u/hello"));
    first.stop();

    let second = Ingress::dev(folder.path());
    let table = Table::of(&second);
    assert!(shell(table.line("a short link")).contains("/u/hello"));
    check_status(&open(table.then("a short link")), "302");
    let kept = get(second.http, "localhost", "/u/kept");
    assert_eq!(kept.field("location"), Some("https://example.com/kept"));
    // The demo backends have other ports now.
    assert_eq!(
        get(second.http, "helloworld.app.localhost", "/").status,
        200
    );
    assert_eq!(
        get(second.http, "helloworld.fn.localhost", "/?name=A").status,
        200
    );
}

#[test]
fn a_second_copy_on_the_same_ports_says_so_and_leaves_the_first_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Ingress::dev(one.path());
    let check = |http: &str, admin: &str, taken: SocketAddr| {
        let data = two.path().to_str().unwrap();
        let https = "127.0.0.1:0";
        let ports = ["--http", http, "--https", https, "--admin", admin];
        let line = [&["dev", "--data", data][..], &ports].concat();
        let second = ended(&mut command(&line));
        assert_eq!(second.status.code(), Some(1), "{}", second.text);
        let said = format!("cannot listen on {taken}: the port is taken");
        assert!(second.text.contains(&said), "{}", second.text);
    };
    check(&first.http.to_string(), "127.0.0.1:0", first.http);
    check("127.0.0.1:0", &first.admin.to_string(), first.admin);
    assert_eq!(get(first.admin, "localhost", "/readyz").status, 200);
}

#[test]
fn a_second_process_on_the_same_folder_says_so_and_leaves_the_first_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = Ingress::dev(folder.path());
    let second = ended(&mut dev_command(folder.path()));
    assert_eq!(second.status.code(), Some(1), "{}", second.text);
    let store = folder.path().join("platform.redb");
    let said = format!("the store {} is in use by another process", store.display());
    assert!(second.text.contains(&said), "{}", second.text);
    let link = json!({"destinationURL": "https://example.com/"});
    api(first.http, "dev", "url/create", &link).fine();
}

#[test]
fn a_fixed_port_answers_on_both_loopback_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let http = format!("127.0.0.1:{port}");
    let any = "127.0.0.1:0";
    let mut command = command(&["dev", "--http", &http, "--https", any, "--admin", any]);
    // The folder by the XDG base directory specification.
    let ingress = Ingress::start(command.env("XDG_DATA_HOME", folder.path()));
    assert_eq!(ingress.http.port(), port);
    for address in [ingress.http, (Ipv6Addr::LOCALHOST, port).into()] {
        let hello = get(
            address,
            "localhost",
            "/api/helloworld/call?api_key=dev&name=A",
        );
        assert_eq!(hello.fine()["message"], "Hello A", "{address}");
    }
    let store = Path::new("m3o-ingress/dev/platform.redb");
    assert!(folder.path().join(store).is_file());
}

/// A port that is free on both loopback addresses.
fn free_port() -> u16 {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = listener.local_addr().ok()?.port();
        TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok()?;
        Some(port)
    };
    std::iter::repeat_with(free).flatten().next().unwrap()
}

/// The first link in a page that begins with `start`.
#[track_caller]
fn link_in(page: &str, start: &str) -> String {
    let from = page.find(start).unwrap_or_else(|| panic!("{page}"));
    let end = page[from..].find(['"', '<']).unwrap();
    page[from..from + end]
        .replace("&#38;", "&")
        .replace("&amp;", "&")
}

#[test]
fn a_limit_that_nobody_chose_is_lowered_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let binary = dev_command(folder.path());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\""])
        .arg(binary.get_program())
        .args(binary.get_args())
        .current_dir(folder.path())
        .env_clear();
    let text = Ingress::start(&mut command).stop();
    let lowered = text.lines().find(|line| line.contains("is lowered"));
    assert!(lowered.is_some_and(|line| line.contains("INFO")), "{text}");
}
