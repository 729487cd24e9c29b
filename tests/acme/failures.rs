//! Authorities that fail, refuse, or are not there; and what is served goes on.

use m3o_ingress::acme::Secrets;

use crate::authority::{Authority, Wish};
use crate::directory::Refusal;
use crate::front::Pages;
use crate::ours::{Ours, folder, log};
use crate::running::{eventually, free_port, loopback};

const A: &str = "challenge = 'http-01'\nnames = ['a.ours.test']";

#[track_caller]
fn fails(ours: &Ours, times: usize) {
    eventually("failures", || {
        (ours.orders("failed") >= times).then_some(())
    });
}

#[test]
fn a_proof_that_is_not_found_fails_and_the_next_way_is_tried() {
    let authority = Authority::start();
    // The hook makes no record, so the first way leads nowhere.
    let more = "challenge = ['dns-01', 'http-01']\nnames = ['a.ours.test']\n[dns.hook]\ncommand = '/bin/true'";
    let ours = Ours::start(&authority, more);
    ours.certificate("a.ours.test");
    assert_eq!((ours.orders("failed"), ours.orders("issued")), (1, 1));
}

#[test]
fn a_failed_order_leaves_what_is_served_and_its_pauses_grow() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, A);
    let before = ours.certificate("a.ours.test");
    ours.stop();
    // One name more, and no way to prove it.
    let hook = authority.folder.path().join("nowhere");
    let more = format!(
        "retry = '50ms'\nretry_most = '400ms'\nchallenge = 'dns-01'\nnames = [['a.ours.test', 'b.ours.test']]\n[dns.hook]\ncommand = '{}'",
        hook.display()
    );
    let ours = Ours::start(&authority, &more);
    fails(&ours, 3);
    let served = ours.keyring.find("a.ours.test").unwrap();
    assert_eq!(served.not_after(), before.not_after());
    assert!(ours.keyring.find("b.ours.test").is_none());
}

#[test]
fn a_directory_that_is_down_is_asked_again_until_it_is_there() {
    let authority = Authority::start();
    let nowhere = format!("https://{}/dir", loopback(free_port()));
    let ours = Ours::start_at(&nowhere, &authority, A, Secrets::default());
    fails(&ours, 2);
    ours.stop();
    authority
        .directory
        .refuse([Refusal::Garbage, Refusal::Garbage]);
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    assert_eq!((ours.orders("failed"), ours.orders("issued")), (2, 1));
}

#[test]
fn a_nonce_that_is_refused_is_replaced_within_the_order() {
    let authority = Authority::start();
    authority
        .directory
        .refuse([Refusal::BadNonce, Refusal::BadNonce]);
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    assert_eq!(ours.orders("failed"), 0);
    assert_eq!(authority.directory.asked("order-plz"), 3);
}

#[test]
fn an_authority_that_refuses_many_nonces_gives_certificates_in_the_end() {
    let authority = Authority::start_with(&Wish {
        bad_nonces: 30,
        ..Wish::default()
    });
    let names = ["a", "b", "c", "d"].map(|name| format!("'{name}.ours.test'"));
    let more = format!("challenge = 'http-01'\nnames = [{}]", names.join(", "));
    let ours = Ours::start(&authority, &more);
    for name in ["a", "b", "c", "d"] {
        ours.certificate(&format!("{name}.ours.test"));
    }
    assert!(authority.directory.problems("badNonce") > 0);
}

#[test]
fn an_authority_that_asks_us_to_wait_is_not_asked_before() {
    let authority = Authority::start();
    authority.directory.refuse([Refusal::Limited(3600)]);
    let ours = Ours::start(
        &authority,
        "names = ['a.ours.test', 'b.ours.test']\norders = 1",
    );
    // The other one is not held up by it.
    ours.certificate("b.ours.test");
    assert!(ours.keyring.find("a.ours.test").is_none());
    assert_eq!((ours.orders("failed"), ours.orders("issued")), (1, 1));
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn a_restart_in_the_middle_of_an_order_begins_a_clean_one_with_the_same_account() {
    let authority = Authority::start();
    let gate = authority.directory.hold();
    let ours = Ours::start(&authority, A);
    eventually("an order", || {
        (authority.directory.asked("order-plz") == 1).then_some(())
    });
    ours.stop();
    drop(gate);
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    assert_eq!(authority.directory.asked("sign-me-up"), 1);
}

#[test]
fn an_account_that_was_made_while_we_ended_is_not_made_twice() {
    let authority = Authority::start();
    let gate = authority.directory.hold_account();
    let ours = Ours::start(&authority, A);
    let made = || (authority.directory.accounts() == 1).then_some(());
    eventually("an account", made);
    // It has not heard of it.
    ours.stop();
    drop(gate);
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    assert_eq!(authority.directory.asked("sign-me-up"), 2);
    assert_eq!(authority.directory.accounts(), 1);
}

#[test]
fn an_account_whose_file_was_lost_before_it_was_written_is_found_by_its_key() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    ours.stop();
    let kept = std::fs::read_dir(folder(&authority))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let account = || {
        let text = std::fs::read_to_string(kept.join("account.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["credentials"]["id"].clone()
    };
    let before = account();
    std::fs::remove_file(kept.join("account.json")).unwrap();
    std::fs::remove_dir_all(kept.join("always")).unwrap();
    let ours = Ours::start(&authority, A);
    ours.certificate("a.ours.test");
    assert_eq!(account(), before);
}

#[test]
fn an_authority_that_has_forgotten_our_account_gets_a_new_one() {
    let first = Authority::start();
    let ours = Ours::start(&first, A);
    ours.certificate("a.ours.test");
    ours.stop();
    let second = Authority::start();
    // The same folder, at an authority that lost its memory.
    let kept = std::fs::read_dir(folder(&first))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let url = second.directory.url();
    let name = url.trim_start_matches("https://").replace([':', '/'], "_");
    let there = folder(&second).join(name);
    std::fs::create_dir_all(&there).unwrap();
    for file in ["account.json", "account.der"] {
        let text = std::fs::read_to_string(kept.join(file));
        match text {
            Ok(text) => {
                let origin = |url: &str| url.trim_end_matches("/dir").to_owned();
                let text = text.replace(&origin(&first.directory.url()), &origin(&url));
                std::fs::write(there.join(file), text).unwrap();
            }
            Err(_) => std::fs::copy(kept.join(file), there.join(file))
                .map(drop)
                .unwrap(),
        }
    }
    let ours = Ours::start(&second, A);
    ours.certificate("a.ours.test");
    assert_eq!(second.directory.asked("sign-me-up"), 1);
    assert!(ours.orders("failed") >= 1);
}

#[test]
fn nothing_that_is_logged_in_whatever_detail_holds_a_secret() {
    let authority = Authority::start_with(&Wish {
        pages: Pages::Wrong,
        ..Wish::default()
    });
    let ours = Ours::start(
        &authority,
        "challenge = 'http-01'\nnames = ['secret.ours.test']",
    );
    fails(&ours, 1);
    ours.stop();
    // Pebble says which key authorization it wanted to see.
    let text = log().text();
    assert!(text.contains("secret.ours.test was not proven by http-01"));
    assert!(text.contains("did not match this challenge"));
    let asked = authority.front.asked();
    let (_, thumbprint) = asked[0].split_once('.').unwrap();
    assert!(!text.contains(thumbprint));
    let folder = std::fs::read_dir(folder(&authority)).unwrap().next();
    let account = folder.unwrap().unwrap().path().join("account.json");
    let account: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(account).unwrap()).unwrap();
    let key = account["credentials"]["key_pkcs8"].as_str().unwrap();
    assert!(key.len() > 100 && !text.contains(&key[40..]));
}

#[test]
fn a_certificate_that_the_folder_does_not_take_serves_and_is_kept_later() {
    let authority = Authority::start();
    let gate = authority.directory.hold();
    let ours = Ours::start(&authority, A);
    let inner = std::fs::read_dir(folder(&authority)).unwrap();
    let always = inner.last().unwrap().unwrap().path().join("always");
    // In the way of the file that is written first.
    let obstacle = always.join("a.ours.test.new");
    std::fs::create_dir(&obstacle).unwrap();
    drop(gate);
    ours.certificate("a.ours.test");
    let file = always.join("a.ours.test.pem");
    assert!(!file.exists());
    std::fs::remove_dir(&obstacle).unwrap();
    eventually("the file is there", || file.exists().then_some(()));
    ours.stop();
    let again = Ours::start(&authority, A);
    assert!(again.keyring.find("a.ours.test").is_some());
    assert_eq!(authority.directory.asked("order-plz"), 1);
}
