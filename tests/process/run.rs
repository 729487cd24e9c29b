//! `run` and `check`: files, variables, exit codes, and an ingress in front of a remote API.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::caller::{api, get};
use crate::mail::Mailserver;
use crate::process::{Ingress, command, ended, run_command};
use crate::server::{Server, ok};
use crate::tools;

/// The embedded platform on any ports.
const PLATFORM: &str = "
    listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
    backends = { allow_private = true }
    platform.store = 'store'
";

/// Runs to its end with `code`, and gives what it wrote.
#[track_caller]
fn ends_with(code: i32, command: &mut Command) -> String {
    let ended = ended(command);
    assert_eq!(ended.status.code(), Some(code), "{}", ended.text);
    ended.text
}

#[track_caller]
fn check_says(code: i32, folder: &Path, config: &str) -> String {
    let file = folder.join("checked.toml");
    std::fs::write(&file, config).unwrap();
    ends_with(code, command(&["check", "--config"]).arg(file))
}

#[test]
fn run_serves_as_the_file_says_wherever_the_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingress.toml");
    let file = file.to_str().unwrap();
    let serves = |command: &mut Command| {
        command.env("M3O_PLATFORM_KEY", "key");
        let ingress = Ingress::start(command);
        let hello = api(
            ingress.http,
            "key",
            "helloworld/Call",
            &json!({"name": "A"}),
        );
        assert_eq!(hello.fine()["message"], "Hello A");
        ingress.stop();
    };
    serves(&mut run_command(folder.path(), PLATFORM));
    let here = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.current_dir(folder.path());
        command
    };
    serves(&mut here(&["--config", file]));
    serves(&mut here(&["-c", file, "run"]));
    serves(here(&["run"]).env("M3O_INGRESS_CONFIG", file));
    serves(here(&[]).env("M3O_INGRESS_CONFIG", file));
    let usual = folder.path().join("config");
    std::fs::create_dir(&usual).unwrap();
    std::fs::copy(file, usual.join("ingress.toml")).unwrap();
    serves(&mut here(&[]));
}

#[test]
fn a_variable_stands_over_the_file_and_a_flag_over_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let check = |variable: &str, arguments: &[&str]| {
        let file = folder.path().join("ingress.toml");
        std::fs::write(&file, format!("{PLATFORM}\nlog.level = 'warn'")).unwrap();
        let mut command = command(&["check", "--config", file.to_str().unwrap()]);
        ends_with(
            0,
            command
                .args(arguments)
                .env("M3O_INGRESS_LOG__LEVEL", variable),
        )
    };
    assert!(check("debug", &[]).contains(r#"level = "debug""#));
    let text = check("debug", &["--log-level", "trace"]);
    assert!(text.contains(r#"level = "trace""#), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for line in [
        &["run", "-c", "/no/such/file.toml"],
        &["check", "-c", "/no/such/file.toml"],
    ] {
        let text = ends_with(2, &mut command(line));
        assert!(text.contains("/no/such/file.toml"), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = ends_with(2, command(&[]).current_dir(folder.path()));
    assert!(text.contains("config/ingress.toml"), "{text}");
}

#[test]
fn three_mistakes_are_told_together_each_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = "\
[listen]
http = '127.0.0.1:0'
[platform]
store = 'store'
[timeouts]
header = 'soon'
idel = '5s'
[limits]
body = '1 GB'
";
    let file = folder.path().join("ingress.toml");
    let texts = [
        ends_with(2, &mut run_command(folder.path(), config)),
        ends_with(2, command(&["check", "-c"]).arg(&file)),
    ];
    for text in texts {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for (line, place, words) in [
            (lines[0], "6:10: timeouts.header: ", "soon"),
            (lines[1], "7:1: ", "idle"),
            (lines[2], "9:8: limits.body: ", "1 GB"),
        ] {
            let place = format!("{}:{place}", file.display());
            assert!(line.starts_with(&place), "{place} in {text}");
            assert!(line.contains(words), "{words} in {text}");
        }
    }
    assert!(!folder.path().join("store").exists(), "nothing was begun");
}

#[test]
fn check_prints_a_configuration_that_run_takes() {
    let folder = tempfile::tempdir().unwrap();
    let printed = |config: &str| {
        let file = folder.path().join("checked.toml");
        std::fs::write(&file, config).unwrap();
        let output = command(&["check", "-c"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = printed(PLATFORM);
    assert!(
        text.lines().any(|line| line == r#"store = "store""#),
        "{text}"
    );
    assert_eq!(printed(&text), text);
    assert!(
        !folder.path().join("store").exists(),
        "check creates nothing"
    );
}

#[test]
fn https_without_a_certificate_is_a_mistake_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = "listen.https = '127.0.0.1:0'\nplatform.store = 'store'\ntls.certs = 'nowhere'\n";
    let text = check_says(2, folder.path(), config);
    assert!(
        text.contains("tls.certs: `nowhere` cannot be listed"),
        "{text}"
    );
    let mut command = run_command(folder.path(), config);
    let text = ends_with(2, command.env("M3O_PLATFORM_KEY", "key"));
    let right = "put NAME.crt, with its whole chain, and NAME.key into nowhere";
    assert!(text.contains(right), "{text}");
}

#[test]
fn wrong_usage_is_told_with_what_would_be_right() {
    for (line, words) in [
        (&["serve"][..], "Usage"),
        (&["--log-level", "loud"], "trace"),
        (&["dev", "--http", "here"], "--http"),
        (&["dev", "--config", "file"], "reads no configuration"),
        (&["run", "--unknown"], "--unknown"),
    ] {
        let text = ends_with(2, &mut command(line));
        assert!(text.contains(words), "{line:?}: {text}");
    }
}

#[test]
fn help_names_the_variable_of_every_flag() {
    let help = ends_with(0, &mut command(&["--help"]));
    for name in ["CONFIG", "LOG_FORMAT", "LOG_LEVEL"] {
        let name = format!("[env: M3O_INGRESS_{name}=]");
        assert!(help.contains(&name), "{name} in {help}");
    }
    let help = ends_with(0, &mut command(&["dev", "--help"]));
    for name in ["HTTP", "HTTPS", "ADMIN", "DATA"] {
        let name = format!("[env: M3O_INGRESS_DEV_{name}=]");
        assert!(help.contains(&name), "{name} in {help}");
    }
    let version = ends_with(0, &mut command(&["--version"]));
    assert_eq!(
        version,
        format!("m3o-ingress {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for config in [
        format!("listen.http = '{taken}'"),
        format!("listen = {{ http = '127.0.0.1:0', admin = '{taken}' }}"),
    ] {
        let config = format!("{config}\nplatform.store = 'store'");
        let mut command = run_command(folder.path(), &config);
        let text = ends_with(1, command.env("M3O_PLATFORM_KEY", "key"));
        let said = format!("cannot listen on {taken}: the port is taken");
        assert!(text.contains(&said), "{text}");
    }
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "listen.http = '127.0.0.1:0'\n";
    let remote = format!("{listen}api.address = 'http://127.0.0.1:1'");
    let text = ends_with(2, &mut run_command(folder.path(), &remote));
    assert!(text.contains("M3O_API_TOKEN"), "{text}");
    // A store without any key would let nobody in.
    let own = format!("{listen}platform.store = 'store'");
    let text = ends_with(2, &mut run_command(folder.path(), &own));
    assert!(text.contains("M3O_PLATFORM_KEY"), "{text}");
    assert!(!folder.path().join("store").exists(), "nothing was made");
    let text = ends_with(
        0,
        command(&["check", "-c", "ingress.toml"]).current_dir(folder.path()),
    );
    assert!(text.contains("warning: platform.key_env: "), "{text}");
}

#[test]
fn whoever_closes_the_output_of_check_has_read_enough() {
    let mut check = command(&["check", "-c", "config/ingress.toml"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = check
        .current_dir(tools::folder(""))
        .stdout(writer)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("Broken pipe"), "{said}");
}

#[test]
fn the_first_line_names_the_addresses_and_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run_command(folder.path(), PLATFORM);
    run.args(["--log-format", "json"]);
    let ingress = Ingress::start(run.env("M3O_PLATFORM_KEY", "key"));
    let text = ingress.process.text();
    let line = text.lines().find(|line| line.contains("serving")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["addresses"], json!([ingress.http.to_string()]));
    assert_eq!(line["admin"], ingress.admin.to_string());
    assert_eq!(line["api"], "store store");
    ingress.stop();
}

#[test]
fn the_files_that_we_ship_pass_check() {
    for file in ["config/dev.toml", "config/ingress.toml"] {
        let mut command = command(&["check", "--config", file]);
        let text = ends_with(0, command.current_dir(tools::folder("")));
        assert!(text.contains("[listen]"), "{text}");
    }
}

#[test]
fn every_route_works_in_front_of_a_remote_api() {
    let server = Mailserver::start();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = format!(
        "{PLATFORM}
         [platform.mail]
         smtp_url_env = 'SMTP_URL'
         from = 'noreply@m3o.one'"
    );
    let mut far = run_command(one.path(), &config);
    far.env("M3O_PLATFORM_KEY", "the-key")
        .env("SMTP_URL", server.url());
    let far = Ingress::start(&mut far);
    let config = format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
         backends = {{ allow_private = true }}
         api = {{ address = 'http://{}' }}",
        far.http
    );
    let mut near = run_command(two.path(), &config);
    let near = Ingress::start(near.env("M3O_API_TOKEN", "the-key"));

    let call = |endpoint, body| api(near.http, "the-key", endpoint, &body);
    assert_eq!(
        call("helloworld/Call", json!({"name": "A"})).fine()["message"],
        "Hello A"
    );
    assert_eq!(
        api(near.http, "wrong", "helloworld/Call", &json!({})).status,
        401
    );

    let app = Server::start(|arrived| ok("text/plain", &arrived.head));
    call(
        "app/Run",
        json!({"name": "blog", "backend": format!("{}/base", app.url())}),
    )
    .fine();
    let page = get(near.http, "blog.m3o.app", "/post?a=b");
    assert!(
        page.body.starts_with("GET /base/post?a=b HTTP/1.1\r\n"),
        "{page:?}"
    );
    assert!(
        !page.body.contains("the-key"),
        "our token is for the API alone"
    );
    assert_eq!(get(near.http, "nobody.m3o.app", "/").status, 404);

    call(
        "function/Deploy",
        json!({"name": "greet", "backend": app.url()}),
    )
    .fine();
    assert_eq!(get(near.http, "greet.m3o.sh", "/x").status, 200);

    let link = json!({"id": "here", "destinationURL": "https://example.com/here"});
    call("url/Create", link).fine();
    for (host, path) in [
        ("localhost", "/u/here"),
        ("localhost", "/url/here"),
        ("m3o.one", "/here"),
    ] {
        let followed = get(near.http, host, path);
        assert_eq!(
            followed.field("location"),
            Some("https://example.com/here"),
            "{path}"
        );
    }

    let mail = json!({"email": "alice@example.com", "subject": "Hello",
                      "textContent": "$micro_verification_link", "redirectUrl": "https://example.com/in"});
    call("user/SendVerificationEmail", mail).fine();
    let link = server.mail(0).text;
    let query = link
        .trim()
        .strip_prefix("https://user.m3o.com/")
        .unwrap()
        .to_owned();
    let spent = get(near.http, "user.m3o.com", &format!("/{query}"));
    assert_eq!(
        spent.field("location"),
        Some("https://example.com/in"),
        "{spent:?}"
    );
    assert_eq!(
        get(near.http, "user.m3o.com", &format!("/{query}")).status,
        400
    );

    far.stop();
    // Known apps go on without the API.
    assert_eq!(get(near.http, "blog.m3o.app", "/").status, 200);
    assert_eq!(get(near.http, "m3o.one", "/here").status, 503);
    near.stop();
}
