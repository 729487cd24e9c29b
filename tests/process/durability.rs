//! What was acknowledged is there after a kill, and a store that is damaged is told of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::caller::{api, get, request, send, try_api};
use crate::process::{Ended, Ingress, command, dev_command, ended, eventually};

/// The kinds of records that clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Link,
    App,
    User,
}

/// A record: its kind, and a name that no other has.
type Record = (Kind, String);

/// Every record that was ever sent, and whether the ingress said that it is kept.
type Sent = Mutex<BTreeMap<Record, bool>>;

#[test]
fn what_was_acknowledged_outlives_a_kill_and_nothing_is_half_there() {
    const ROUNDS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let sent = Sent::default();
    let mut ingress = Ingress::dev(folder.path());
    for round in 0..ROUNDS {
        write_until_killed(ingress, &sent, round);
        ingress = Ingress::dev(folder.path());
        check_records(ingress.http, &sent.lock().unwrap());
    }
    ingress.stop();
}

/// Several clients write at once, and the kill comes while they do.
fn write_until_killed(ingress: Ingress, sent: &Sent, round: usize) {
    let http = ingress.http;
    let writers = [
        Kind::Link,
        Kind::Link,
        Kind::App,
        Kind::App,
        Kind::User,
        Kind::User,
    ];
    std::thread::scope(|scope| {
        for (writer, kind) in writers.into_iter().enumerate() {
            scope.spawn(move || {
                for number in 0.. {
                    let record = (kind, format!("w{round}-{writer}-{number}"));
                    sent.lock().unwrap().insert(record.clone(), false);
                    let Ok(answer) = write(http, &record) else {
                        return;
                    };
                    answer.fine();
                    sent.lock().unwrap().insert(record, true);
                }
            });
        }
        eventually("some of each kind", || {
            let sent = sent.lock().unwrap();
            let start = format!("w{round}-");
            let enough = |kind, least| {
                let kept = sent
                    .iter()
                    .filter(|((of, name), kept)| **kept && *of == kind && name.starts_with(&start));
                kept.count() >= least
            };
            (enough(Kind::Link, 20) && enough(Kind::App, 20) && enough(Kind::User, 2)).then_some(())
        });
        ingress.kill();
    });
}

fn write(http: SocketAddr, (kind, name): &Record) -> std::io::Result<crate::caller::Answer> {
    let (endpoint, body) = match kind {
        Kind::Link => (
            "url/Create",
            json!({"id": name, "destinationURL": destination(name)}),
        ),
        Kind::App => (
            "app/Run",
            json!({"name": name, "backend": destination(name)}),
        ),
        Kind::User => (
            "user/Create",
            json!({"id": name, "email": email(name), "username": name, "password": "12345678"}),
        ),
    };
    try_api(http, "dev", endpoint, &body)
}

fn destination(name: &str) -> String {
    format!("https://example.com/{name}?{}", "x".repeat(300))
}

fn email(name: &str) -> String {
    format!("{name}@example.com")
}

fn check_records(http: SocketAddr, sent: &BTreeMap<Record, bool>) {
    let list = |endpoint, all: &str, name: &str, value: &str| -> BTreeMap<String, String> {
        let answer = api(http, "dev", endpoint, &json!({})).fine();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let each = answer[all].as_array().unwrap().iter();
        each.map(|each| (text(&each[name]), text(&each[value])))
            .collect()
    };
    let links = list("url/List", "urlPairs", "id", "destinationURL");
    let apps = list("app/List", "services", "name", "backend");
    for ((kind, name), kept) in sent {
        let whole = Some(destination(name));
        let found = match kind {
            Kind::Link => links.get(name) == whole.as_ref(),
            Kind::App => apps.get(name) == whole.as_ref(),
            Kind::User => is_whole_user(http, name),
        };
        let half = match kind {
            Kind::Link => links.contains_key(name) && !found,
            Kind::App => apps.contains_key(name) && !found,
            Kind::User => false,
        };
        assert!(
            found || !kept,
            "{kind:?} {name} was acknowledged and is lost"
        );
        assert!(!half, "{kind:?} {name} is half there");
    }
}

/// A user is found under all three names or under none.
#[track_caller]
fn is_whole_user(http: SocketAddr, name: &str) -> bool {
    let found = [
        json!({"id": name}),
        json!({"email": email(name)}),
        json!({"username": name}),
    ]
    .map(|by| api(http, "dev", "user/Read", &by).status);
    match found {
        [200, 200, 200] => true,
        [404, 404, 404] => false,
        half => panic!("user {name} is half there: {half:?}"),
    }
}

#[test]
fn at_most_a_second_of_hits_is_lost_to_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let link = json!({"id": "hit", "destinationURL": "https://example.com/"});
    api(ingress.http, "dev", "url/Create", &link).fine();

    let http = ingress.http;
    let killed = AtomicBool::new(false);
    let follow = request("GET", "localhost", "/u/hit", &[], "");
    let began = Instant::now();
    let (at, followed) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut followed = Vec::new();
            while !killed.load(Ordering::Relaxed) {
                match send(http, follow.as_bytes()) {
                    Ok(answer) if answer.status == 302 => followed.push(Instant::now()),
                    Ok(_) | Err(_) => break,
                }
            }
            followed
        });
        eventually("hits of more than two seconds", || {
            (began.elapsed() > Duration::from_millis(2500)).then_some(())
        });
        let at = Instant::now();
        ingress.kill();
        killed.store(true, Ordering::Relaxed);
        (at, client.join().unwrap())
    });
    let old = followed
        .iter()
        .filter(|then| at.duration_since(**then) > Duration::from_secs(1));
    let old = old.count();
    assert!(old > 0);

    let ingress = Ingress::dev(folder.path());
    let listed = api(ingress.http, "dev", "url/List", &json!({})).fine();
    let kept: usize = listed["urlPairs"][0]["hitCount"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // One that was under way at the kill may be counted and not answered.
    assert!(
        (old..=followed.len() + 1).contains(&kept),
        "{kept} of {}, {old} old",
        followed.len()
    );
}

#[test]
fn a_clean_stop_loses_no_hit() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let link = json!({"id": "hit", "destinationURL": "https://example.com/"});
    api(ingress.http, "dev", "url/Create", &link).fine();
    for _ in 0..7 {
        assert_eq!(get(ingress.http, "localhost", "/u/hit").status, 302);
    }
    ingress.stop();
    let ingress = Ingress::dev(folder.path());
    let listed = api(ingress.http, "dev", "url/List", &json!({})).fine();
    assert_eq!(listed["urlPairs"][0]["hitCount"], "7");
}

#[test]
fn a_token_that_was_spent_before_a_kill_stays_spent() {
    let folder = tempfile::tempdir().unwrap();
    let mut ingress = Ingress::dev(folder.path());
    let links: Vec<String> = (0..2).map(|_| mailed_link(&ingress)).collect();
    let verify = |ingress: &Ingress, link: &str| get(ingress.http, "user.localhost", link).status;
    let create = json!({"id": "a", "email": "alice@example.com", "password": "12345678"});
    api(ingress.http, "dev", "user/Create", &create).fine();
    assert_eq!(verify(&ingress, &links[0]), 200);
    ingress.kill();

    ingress = Ingress::dev(folder.path());
    assert_eq!(verify(&ingress, &links[0]), 400, "spent");
    let alice = api(ingress.http, "dev", "user/Read", &json!({"id": "a"})).fine();
    assert_eq!(
        alice["account"]["verified"], true,
        "together with its token"
    );
    assert_eq!(verify(&ingress, &links[1]), 200, "not spent");
}

/// The target of the newest link in the mailbox.
#[track_caller]
fn mailed_link(ingress: &Ingress) -> String {
    let mail = json!({"email": "alice@example.com", "subject": "Hello",
                      "textContent": "$micro_verification_link"});
    api(ingress.http, "dev", "user/SendVerificationEmail", &mail).fine();
    let page = get(ingress.admin, "localhost", "/mail").body;
    let from = page.find("/?token=").unwrap();
    let end = page[from..].find(['"', '<']).unwrap();
    page[from..from + end].to_owned()
}

#[test]
fn a_damaged_store_stops_the_start_and_is_left_as_it_is() {
    const TEXT: &str = "https://example.com/the-text-to-find";
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    let link = json!({"id": "found", "destinationURL": TEXT});
    api(ingress.http, "dev", "url/Create", &link).fine();
    ingress.stop();
    let store = folder.path().join("platform.redb");
    let whole = std::fs::read(&store).unwrap();

    let mut flipped = whole.clone();
    let places: Vec<usize> = whole
        .windows(TEXT.len())
        .enumerate()
        .filter_map(|(at, window)| (window == TEXT.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for place in places {
        flipped[place + 5] ^= 1;
    }
    for damaged in [&whole[..whole.len() / 2], &whole[..100], &[], &flipped] {
        std::fs::write(&store, damaged).unwrap();
        let ended = ended(&mut dev_command(folder.path()));
        check_refusal(&ended, &store);
        assert!(
            ended.text.contains("restore it from a backup"),
            "{}",
            ended.text
        );
        assert!(std::fs::read(&store).unwrap() == damaged, "left as it is");
    }

    std::fs::write(&store, &whole).unwrap();
    let ingress = Ingress::dev(folder.path());
    assert_eq!(
        get(ingress.http, "localhost", "/u/found").field("location"),
        Some(TEXT)
    );
}

#[test]
fn a_store_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Not even root makes a folder in these.
    for data in [file.join("data"), Path::new("/proc/self/data").to_owned()] {
        check_refusal(&ended(&mut dev_command(&data)), &data);
        let variables = [
            (
                "M3O_INGRESS_PLATFORM__STORE",
                data.join("store").display().to_string(),
            ),
            ("M3O_PLATFORM_KEY", "key".to_owned()),
        ];
        let config = folder.path().join("ingress.toml");
        std::fs::write(&config, "listen.http = '127.0.0.1:0'").unwrap();
        let mut run = command(&["run", "--config", config.to_str().unwrap()]);
        check_refusal(&ended(run.envs(variables)), &data);
    }
}

#[track_caller]
fn check_refusal(ended: &Ended, path: &Path) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text);
    let named = ended.text.contains(path.to_str().unwrap());
    assert!(named, "{} in {}", path.display(), ended.text);
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
}
