//! A certificate by each way to prove a name.

use std::os::unix::fs::PermissionsExt;

use m3o_ingress::acme::Secrets;
use m3o_ingress::tls::certificate::Certificate;

use crate::authority::{Authority, Wish};
use crate::name_server::{self, NameServer};
use crate::ours::{Ours, eab, folder, tsig};
use crate::running::eventually;

fn names(certificate: &Certificate) -> Vec<&str> {
    certificate.names().collect()
}

#[test]
fn names_are_proven_by_a_page() {
    let authority = Authority::start();
    let ours = Ours::start(
        &authority,
        "challenge = 'http-01'\nnames = [['a.ours.test', 'b.ours.test'], 'c.ours.test']",
    );
    let certificate = ours.certificate("b.ours.test");
    assert_eq!(names(&certificate), ["a.ours.test", "b.ours.test"]);
    assert!(certificate.key().is_ok());
    assert_eq!(names(&ours.certificate("c.ours.test")), ["c.ours.test"]);
    assert_eq!(
        authority.directory.asked("sign-me-up"),
        1,
        "one account for all"
    );
    assert_eq!(ours.orders("issued"), 2);
    assert_eq!(ours.orders("failed"), 0);
}

#[test]
fn a_name_is_proven_by_a_certificate() {
    let authority = Authority::start();
    let ours = Ours::start(
        &authority,
        "challenge = 'tls-alpn-01'\nkey_type = 'p384'\nnames = ['a.ours.test']",
    );
    ours.certificate("a.ours.test");
    assert!(
        authority.challenges.alpn("a.ours.test").is_none(),
        "it is taken away"
    );
}

#[test]
fn a_wildcard_is_proven_by_a_hook_which_cleans_up() {
    let authority = Authority::start();
    let hook = authority.hook();
    let more = format!(
        "key_type = 'rsa2048'\nnames = [['*.ours.test', 'ours.test']]\n[dns.hook]\ncommand = '{}'",
        hook.display()
    );
    let ours = Ours::start(&authority, &more);
    let certificate = ours.certificate("any.ours.test");
    assert_eq!(names(&certificate), ["*.ours.test", "ours.test"]);
    ours.stop();
    let calls = authority.hook_calls();
    let count = |action: &str| {
        let call = format!("{action} _acme-challenge.ours.test");
        calls.iter().filter(|told| **told == call).count()
    };
    assert_eq!((count("present"), count("cleanup")), (2, 2), "{calls:?}");
}

#[test]
fn a_wildcard_is_proven_by_updates_of_a_real_name_server() {
    let server = NameServer::start();
    let authority = Authority::start_with(&Wish {
        name_server: Some(server.port),
        ..Wish::default()
    });
    // The server is asked for the zone.
    let more = format!(
        "names = [['*.ours.test', 'ours.test']]\n{}",
        server.section("")
    );
    let ours = Ours::start_with(&authority, &more, tsig(name_server::KEY));
    ours.certificate("any.ours.test");
    ours.stop();
    assert_eq!(
        server.texts("_acme-challenge.ours.test"),
        "",
        "it is cleaned up"
    );
}

#[test]
fn a_name_server_that_does_not_know_our_key_is_told_of_and_nothing_stays_behind() {
    let server = NameServer::start();
    let authority = Authority::start_with(&Wish {
        name_server: Some(server.port),
        ..Wish::default()
    });
    let more = format!("names = ['*.ours.test']\n{}", server.section("ours.test"));
    let other = "b3RoZXJvdGhlcm90aGVyb3RoZXI=";
    let ours = Ours::start_with(&authority, &more, tsig(other));
    eventually("a failure", || (ours.orders("failed") > 0).then_some(()));
    assert!(ours.keyring.find("any.ours.test").is_none());
    assert_eq!(server.texts("_acme-challenge.ours.test"), "");
}

#[test]
fn an_account_is_bound_to_one_that_the_operator_has() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let authority = Authority::start_with(&Wish {
        binding: Some(("kid-1", key)),
        ..Wish::default()
    });
    let names = "names = ['a.ours.test']";
    let unbound = Ours::start(&authority, names);
    eventually("a failure", || (unbound.orders("failed") > 0).then_some(()));
    unbound.stop();
    let bound = format!("eab_kid = 'kid-1'\neab_key_env = 'X'\n{names}");
    let ours = Ours::start_with(&authority, &bound, eab(key));
    ours.certificate("a.ours.test");
}

#[test]
fn account_and_certificates_are_kept_where_nobody_else_can_read_them() {
    let authority = Authority::start();
    let more = "contact = 'ops@ours.test'\nnames = ['a.ours.test']";
    let ours = Ours::start(&authority, more);
    ours.certificate("a.ours.test");
    ours.stop();
    let (accounts, orders) = (
        authority.directory.asked("sign-me-up"),
        authority.directory.asked("order-plz"),
    );
    let again = Ours::start_with(&authority, more, Secrets::default());
    // It is there before anything could be asked for.
    assert!(again.keyring.find("a.ours.test").is_some());
    again.stop();
    assert_eq!(authority.directory.asked("sign-me-up"), accounts);
    assert_eq!(authority.directory.asked("order-plz"), orders);
    check_modes(&folder(&authority));
}

fn check_modes(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
        if path.is_dir() {
            check_modes(&path);
        }
    }
}
