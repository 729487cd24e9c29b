//! The hook as a program, and a name server that is none.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::acme::config::{Algorithm, Hook, ServerAddress, Update};

fn record() -> Record {
    Record::of("m3o.app", "value".to_owned())
}

fn hook(script: &str, timeout: Duration) -> Solver {
    let command = ["/bin/sh", "-c", script, "hook"];
    Solver::Hook(Hook {
        command: command.map(str::to_owned).to_vec(),
        timeout,
    })
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_hook_is_told_what_to_do_in_arguments_and_environment() {
    let script = r#"
        [ "$*" = "present _acme-challenge.m3o.app value" ] || exit 1
        [ "$ACME_ACTION $ACME_NAME $ACME_VALUE" = "$*" ] || exit 2
        [ -z "$CARGO_MANIFEST_DIR" ] || exit 3
    "#;
    hook(script, LONG).present(&record()).await.unwrap();
    let script = r#"[ "$1" = cleanup ]"#;
    hook(script, LONG).cleanup(&record()).await.unwrap();
}

#[tokio::test]
async fn a_hook_that_fails_says_why() {
    let check = |failed: Result<(), DnsError>, expected: &str| {
        let error = failed.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let script = "echo 'no such   zone' >&2; exit 7";
    let failed = hook(script, LONG).present(&record()).await;
    check(failed, "exit status: 7, and said: no such zone");
    let endless = "while :; do echo 0123456789abcdef; done >&2 & sleep 0.2; kill $!; exit 1";
    let failed = hook(endless, LONG).present(&record()).await;
    check(failed, "exit status: 1");
    let missing = Solver::Hook(Hook {
        command: vec!["/nowhere/hook".to_owned()],
        timeout: LONG,
    });
    check(missing.present(&record()).await, "cannot be started");
}

#[tokio::test]
async fn a_hook_that_does_not_end_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let failed = hook(&script, Duration::from_millis(500))
        .present(&record())
        .await;
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("killed"), "{error}");
    let pid: i32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let status = format!("/proc/{pid}/stat");
    let deadline = tokio::time::Instant::now() + LONG;
    // Whoever adopts it may not have looked yet: then it is a zombie.
    while std::fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z ")) {
        assert!(tokio::time::Instant::now() < deadline, "it lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn updater(server: std::net::SocketAddr, zone: &str, key: &str) -> Result<Solver, BadUpdate> {
    let config = Update {
        server: ServerAddress(server),
        zone: zone.to_owned(),
        key_name: "acme".to_owned(),
        algorithm: Algorithm::HmacSha256,
        key_env: String::new(),
        ttl: Duration::from_secs(60),
        watch: Vec::new(),
        wait: LONG,
    };
    let dns = Dns {
        update: Some(config),
        hook: None,
    };
    Ok(Solver::new(&dns, Some(&Secret::new(key)))?.unwrap())
}

/// Answers one message with what `answer` makes of it.
async fn serve(listener: TcpListener, answer: impl Fn(Vec<u8>) -> Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.unwrap();
    let answer = answer(message);
    stream
        .write_u16(u16::try_from(answer.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&answer).await.unwrap();
}

async fn refused(answer: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let solver = updater(server, "m3o.app", "c2VjcmV0").unwrap();
    let record = record();
    let (refused, ()) = tokio::join!(solver.present(&record), serve(listener, answer));
    refused.unwrap_err().to_string()
}

#[tokio::test]
async fn an_answer_that_is_not_signed_is_not_believed() {
    // Only the head: an answer, no error, our identifier.
    let unsigned = |message: Vec<u8>| {
        let mut answer = message[..12].to_vec();
        answer[2] |= 0x80;
        answer[4..].fill(0);
        answer
    };
    let error = refused(unsigned).await;
    assert!(error.contains("not signed with our key"), "{error}");
    // Our own signature is not that of an answer.
    let echo = |mut message: Vec<u8>| {
        message[2] |= 0x80;
        message
    };
    let error = refused(echo).await;
    assert!(error.contains("not signed with our key"), "{error}");
}

#[tokio::test]
async fn an_answer_to_another_question_and_garbage_are_refused() {
    let other = |message: Vec<u8>| {
        let mut answer = message[..12].to_vec();
        answer[0] ^= 1;
        answer[2] |= 0x80;
        answer[4..].fill(0);
        answer
    };
    for error in [refused(other).await, refused(|_| vec![7; 3]).await] {
        assert!(error.contains("makes no sense"), "{error}");
    }
}

#[test]
fn what_could_never_be_sent_is_told_at_once_and_no_key_is_printed() {
    let server = "127.0.0.1:1".parse().unwrap();
    assert!(matches!(
        updater(server, "a..b", "AA=="),
        Err(BadUpdate::Zone(_))
    ));
    assert!(matches!(updater(server, "a", "%"), Err(BadUpdate::Key)));
    let solver = updater(server, "", "Y2FuYXJ5").unwrap();
    let printed = format!("{solver:?}");
    assert!(
        !printed.contains("canary") && !printed.contains("Y2Fu"),
        "{printed}"
    );
}
