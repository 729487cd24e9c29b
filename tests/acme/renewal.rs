//! Certificates that grow old.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::authority::Authority;
use crate::ours::{OURS, Ours, folder};
use crate::running::eventually;

const A: &str = "challenge = 'http-01'\nnames = ['a.ours.test']";

/// The file of a certificate, in its folder.
fn file(authority: &Authority, shelf: &str, name: &str) -> PathBuf {
    let url = authority.directory.url();
    let directory = url.trim_start_matches("https://").replace([':', '/'], "_");
    folder(authority)
        .join(directory)
        .join(shelf)
        .join(format!("{name}.pem"))
}

/// Writes a certificate of a week that began so many days ago, as an earlier run may have.
fn write_old(path: &Path, name: &str, days: i64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let from_today = |days: i64| {
        let day = today + jiff::SignedDuration::from_hours(24 * days);
        rcgen::date_time_ymd(
            day.year().into(),
            u8::try_from(day.month()).unwrap(),
            u8::try_from(day.day()).unwrap(),
        )
    };
    parameters.not_before = from_today(-days);
    parameters.not_after = from_today(7 - days);
    let chain = parameters.self_signed(&key).unwrap().pem();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("{}{chain}", key.serialize_pem())).unwrap();
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life_and_served_until_then() {
    let authority = Authority::start();
    let path = file(&authority, "always", "a.ours.test");
    write_old(&path, "a.ours.test", 5);
    let old = std::fs::read(&path).unwrap();
    let gate = authority.directory.hold();
    let ours = Ours::start(&authority, A);
    eventually("an order", || {
        (authority.directory.asked("order-plz") == 1).then_some(())
    });
    let before = ours.keyring.find("a.ours.test").unwrap().not_after();
    drop(gate);
    eventually("a new one", || {
        let now = ours.keyring.find("a.ours.test").unwrap().not_after();
        (now != before).then_some(())
    });
    assert_ne!(std::fs::read(&path).unwrap(), old);
}

#[test]
fn a_certificate_that_is_young_is_left_alone() {
    let authority = Authority::start();
    write_old(&file(&authority, "always", "a.ours.test"), "a.ours.test", 1);
    let more = format!("{A}\norders = 1").replace("'a.ours.test'", "'a.ours.test', 'b.ours.test'");
    let ours = Ours::start(&authority, &more);
    ours.certificate("b.ours.test");
    assert_eq!(authority.directory.asked("order-plz"), 1);
    assert!(ours.keyring.find("a.ours.test").is_some());
}

#[test]
fn a_broken_file_is_ordered_again() {
    let authority = Authority::start();
    let path = file(&authority, "always", "a.ours.test");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").unwrap();
    Ours::start(&authority, A).certificate("a.ours.test");
}

#[test]
fn a_file_with_the_key_of_another_certificate_is_ordered_again() {
    let authority = Authority::start();
    let path = file(&authority, "always", "a.ours.test");
    write_old(&path, "a.ours.test", 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let chain = &text[text.find("-----BEGIN CERTIFICATE-----").unwrap()..];
    let other = rcgen::KeyPair::generate().unwrap();
    let text = format!("{}{chain}", other.serialize_pem());
    std::fs::write(&path, &text).unwrap();
    let ours = Ours::start(&authority, A);
    eventually("a new one", || (ours.orders("issued") == 1).then_some(()));
    assert!(ours.certificate("a.ours.test").key().is_ok());
    assert_ne!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_certificate_is_renewed_when_its_authority_says_so() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, A);
    let first = ours.certificate("a.ours.test");
    ours.stop();
    // It is two hours old, and the authority wants it renewed.
    let path = file(&authority, "always", "a.ours.test");
    let age = SystemTime::now() - Duration::from_secs(2 * 3600);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(age)
        .unwrap();
    let old = std::fs::read(&path).unwrap();
    authority
        .directory
        .renew_between("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let ours = Ours::start(&authority, A);
    eventually("a new one", || (ours.orders("issued") == 1).then_some(()));
    assert_ne!(std::fs::read(&path).unwrap(), old);
    assert!(ours.keyring.find("a.ours.test").unwrap().not_after() >= first.not_after());
    assert_eq!(
        authority.directory.replaced().len(),
        1,
        "it takes the place of the first"
    );
    // The authority still says so, of the new one: it is not followed in a circle.
    eventually("the next question", || {
        (authority.directory.asked("renewal-info") >= 2).then_some(())
    });
    assert_eq!(ours.orders("issued"), 1);
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn what_was_ordered_on_demand_is_renewed_while_it_is_known_and_forgotten_after() {
    let authority = Authority::start();
    let known = format!("known{OURS}");
    let known_file = file(&authority, "on-demand", &known);
    let other_file = file(&authority, "on-demand", "gone.test");
    let young_file = file(&authority, "on-demand", "young.test");
    write_old(&known_file, &known, 5);
    write_old(&other_file, "gone.test", 5);
    write_old(&young_file, "young.test", 1);
    let old = std::fs::read(&known_file).unwrap();
    let ours = Ours::start(&authority, "on_demand = true\nnames = ['a.ours.test']");
    eventually("a renewal", || (ours.orders("issued") == 2).then_some(()));
    assert_ne!(std::fs::read(&known_file).unwrap(), old);
    assert!(!other_file.exists() && ours.keyring.find("gone.test").is_none());
    assert!(young_file.exists() && ours.keyring.find("young.test").is_some());
}
