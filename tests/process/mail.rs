//! Mail that leaves by SMTP, to a server that was not written here (aiosmtpd).

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::caller::{Answer, api, connect, get};
use crate::process::{Ingress, Process, eventually, run_command};
use crate::tools;

/// A mail server. Ends when dropped.
pub(crate) struct Mailserver {
    process: Process,
    port: u16,
}

/// A mail as it arrived.
#[derive(Debug, Deserialize)]
pub(crate) struct Mail {
    sender: String,
    recipients: Vec<String>,
    fields: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Mailserver {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::at(0)
    }

    #[track_caller]
    fn at(port: u16) -> Self {
        let mut python = tools::python();
        python.arg(tools::folder("tests/python/mailserver.py"));
        // Its input stays open as long as the test.
        let process = Process::spawn(python.arg(port.to_string()).stdin(Stdio::piped()));
        let port = process.wrote("its port", |text| {
            let first: Value = serde_json::from_str(text.split_once('\n')?.0).ok()?;
            u16::try_from(first["port"].as_u64()?).ok()
        });
        Self { process, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// Waits for the mail that came after `earlier` others.
    #[track_caller]
    pub(crate) fn mail(&self, earlier: usize) -> Mail {
        self.process.wrote("a mail", |text| {
            let whole = &text[..text.rfind('\n')? + 1];
            serde_json::from_str(whole.lines().nth(1 + earlier)?).ok()
        })
    }

    fn count(&self) -> usize {
        self.process.text().lines().count() - 1
    }
}

impl Mail {
    /// The values of all fields of a name.
    fn field(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter();
        fields
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The path and query of the link in it.
    fn link(&self) -> &str {
        let (_, link) = self.text.split_once("https://user.m3o.com").unwrap();
        link.split_whitespace().next().unwrap()
    }
}

#[track_caller]
fn start(folder: &Path, smtp_url: &str) -> Ingress {
    start_with(folder, smtp_url, "")
}

#[track_caller]
fn start_with(folder: &Path, smtp_url: &str, more: &str) -> Ingress {
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
        [platform]
        store = 'store'
        [platform.mail]
        smtp_url_env = 'THE_MAIL_SERVER'
        from = 'noreply@m3o.one'
    ";
    let mut command = run_command(folder, &format!("{config}\n{more}"));
    let command = command.env("M3O_PLATFORM_KEY", "key");
    Ingress::start(command.env("THE_MAIL_SERVER", smtp_url))
}

#[track_caller]
fn send(ingress: &Ingress, changes: &Value) -> Answer {
    let mut mail = json!({
        "email": "alice@example.com",
        "fromName": "Ärger & Söhne",
        "subject": "Grüße",
        "textContent": "Hello Alice,\n\nconfirm: $micro_verification_link\n.\nBye",
        "redirectUrl": "https://example.com/in?a=b&c=d",
    });
    for (name, value) in changes.as_object().unwrap() {
        mail[name] = value.clone();
    }
    api(ingress.http, "key", "user/sendVerificationEmail", &mail)
}

#[test]
fn a_mail_arrives_with_its_link_and_the_link_works_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mailserver::start();
    let ingress = start(folder.path(), &server.url());
    send(&ingress, &json!({})).fine();

    let mail = server.mail(0);
    assert_eq!(mail.sender, "noreply@m3o.one");
    assert_eq!(mail.recipients, ["alice@example.com"]);
    let from = mail.field("from");
    assert!(
        from[0].contains("Ärger & Söhne") && from[0].ends_with("<noreply@m3o.one>"),
        "{mail:?}"
    );
    assert_eq!(mail.field("to"), ["alice@example.com"]);
    assert_eq!(mail.field("subject"), ["Grüße"]);
    assert_eq!(mail.field("date").len(), 1, "{mail:?}");
    let text = mail.text.replace("\r\n", "\n");
    assert!(
        text.starts_with("Hello Alice,\n\nconfirm: https://user.m3o.com/?token="),
        "{text}"
    );
    assert!(text.trim_end().ends_with("\n.\nBye"), "{text}");
    assert!(!text.contains("$micro_verification_link"));

    let follow = || get(ingress.http, "user.m3o.com", mail.link());
    let followed = follow();
    assert_eq!(
        followed.field("location"),
        Some("https://example.com/in?a=b&c=d"),
        "{followed:?}"
    );
    assert_eq!(follow().status, 400);
    ingress.stop();
}

#[test]
fn mail_that_waits_for_its_server_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    // Kept from others until the server takes it: a socket that does not listen refuses callers.
    let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    reserved.set_reuse_address(true).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    reserved.bind(&any.into()).unwrap();
    let bound = reserved.local_addr().unwrap().as_socket().unwrap();
    let url = format!("smtp://{bound}");
    let ingress = start(folder.path(), &url);
    send(&ingress, &json!({"email": "bob@example.com"})).fine();
    ingress.process.wrote("that the mail waits", |text| {
        text.contains("waits until").then_some(())
    });
    ingress.kill();

    let ingress = start(folder.path(), &url);
    let server = Mailserver::at(bound.port());
    // The first retry is due ten seconds after the first attempt.
    let mail = server.mail(0);
    assert_eq!(mail.recipients, ["bob@example.com"]);
    assert_eq!(get(ingress.http, "user.m3o.com", mail.link()).status, 302);
    ingress.stop();
    assert_eq!(server.count(), 1, "sent once");
}

#[test]
fn a_mail_that_could_carry_fields_of_its_own_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Mailserver::start();
    let ingress = start(folder.path(), &server.url());
    for changes in [
        json!({"subject": "Hello\r\nBcc: eve@example.com"}),
        json!({"subject": "Hello\nBcc: eve@example.com"}),
        json!({"subject": "Hello\u{85}Bcc: eve@example.com"}),
        json!({"subject": "Hello\u{0}"}),
        json!({"fromName": "Alice\r\nBcc: eve@example.com"}),
        json!({"email": "alice@example.com\r\nBcc: eve@example.com"}),
        json!({"email": "alice@example.com, eve@example.com"}),
        json!({"email": "alice@example.com> NOTIFY=SUCCESS <eve@example.com"}),
        json!({"email": "Alice <alice@example.com>"}),
        json!({"email": "@example.com"}),
        json!({"textContent": "no link"}),
        json!({"redirectUrl": "javascript:alert(1)"}),
        json!({"redirectUrl": "https://user@example.com/"}),
    ] {
        let refused = send(&ingress, &changes);
        assert_eq!(refused.status, 400, "{changes}: {refused:?}");
    }
    // A name that only looks like more than one.
    let name = r#""Eve" <eve@example.com>, Bob"#;
    send(&ingress, &json!({"fromName": name})).fine();
    let mail = server.mail(0);
    assert_eq!(server.count(), 1, "nothing of what was refused left");
    assert_eq!(mail.recipients, ["alice@example.com"]);
    assert!(mail.field("bcc").is_empty());
    let from = mail.field("from");
    assert!(
        from.len() == 1 && from[0].ends_with("<noreply@m3o.one>"),
        "{from:?}"
    );
    ingress.stop();
}

#[test]
fn without_a_mail_server_nothing_that_needs_one_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0' }
        platform = { store = 'store' }
    ";
    let ingress = Ingress::start(run_command(folder.path(), config).env("M3O_PLATFORM_KEY", "key"));
    let refused = send(&ingress, &json!({}));
    assert_eq!(refused.status, 501);
    assert_eq!(refused.json()["detail"], "no mail is configured");
    assert_eq!(get(ingress.admin, "localhost", "/mail").status, 404);
}

#[test]
fn a_second_signal_does_not_wait_for_a_mail_server_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    // Longer than the test waits for the end.
    let ingress = start_with(folder.path(), &url, "[timeouts]\ndrain = '10m'");
    send(&ingress, &json!({})).fine();
    let _held = eventually("the mail is under way", || silent.accept().ok());
    ingress.process.signal(Signal::TERM);
    eventually("no new connections", || connect(ingress.http).err());
    ingress.process.signal(Signal::TERM);
    let ended = ingress.process.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
}
