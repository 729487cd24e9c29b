//! Certificates for names that the platform knows, at the first handshake.

use crate::authority::Authority;
use crate::directory::Refusal;
use crate::ours::{Ours, PANICS};
use crate::running::eventually;

const ON_DEMAND: &str = "on_demand = true\nnames = ['a.ours.test']";

#[test]
fn a_known_name_gets_its_certificate_while_the_first_client_waits() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, ON_DEMAND);
    let found = ours.handshake("new.ours.test", "192.0.2.1").unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), ["new.ours.test"]);
    ours.stop();
    let orders = authority.directory.asked("order-plz");
    let again = Ours::start(&authority, ON_DEMAND);
    assert!(
        again.keyring.find("new.ours.test").is_some(),
        "it outlives the process"
    );
    again.certificate("a.ours.test");
    again.stop();
    assert!(authority.directory.asked("order-plz") <= orders + 1);
}

#[test]
fn clients_that_come_together_wait_for_one_order() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, ON_DEMAND);
    ours.certificate("a.ours.test");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=8)
            .map(|peer| {
                let ours = &ours;
                scope.spawn(move || ours.handshake("new.ours.test", &format!("192.0.2.{peer}")))
            })
            .collect();
        for client in clients {
            assert!(client.join().unwrap().is_some());
        }
    });
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn an_unknown_name_never_reaches_the_authority() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, ON_DEMAND);
    ours.certificate("a.ours.test");
    let before = authority.directory.asked("nonce-plz");
    for number in 0..1000 {
        let name = format!("n{number}.evil.test");
        assert!(ours.handshake(&name, "192.0.2.1").is_none());
    }
    // What comes after them is not held up.
    assert!(ours.handshake("new.ours.test", "192.0.2.1").is_some());
    assert_eq!(authority.directory.asked("order-plz"), 2);
    assert!(authority.directory.asked("nonce-plz") <= before + 2);
}

#[test]
fn a_name_that_a_wildcard_covers_is_not_ordered() {
    let authority = Authority::start();
    let hook = authority.hook();
    let more = format!(
        "on_demand = true\nnames = ['*.ours.test']\n[dns.hook]\ncommand = '{}'",
        hook.display()
    );
    let ours = Ours::start(&authority, &more);
    ours.certificate("any.ours.test");
    assert!(ours.handshake("new.ours.test", "192.0.2.1").is_some());
    assert_eq!(authority.directory.asked("order-plz"), 1);
}

#[test]
fn a_peer_and_all_together_cause_only_so_many_orders() {
    let authority = Authority::start();
    let more = format!("on_demand_per_peer = 2\non_demand_overall = 3\n{ON_DEMAND}");
    let ours = Ours::start(&authority, &more);
    ours.certificate("a.ours.test");
    let came = |name: &str, peer| ours.handshake(&format!("{name}.ours.test"), peer).is_some();
    assert!(came("n1", "192.0.2.1") && came("n2", "192.0.2.1"));
    assert!(!came("n3", "192.0.2.1"));
    assert!(came("n3", "192.0.2.2"));
    assert!(!came("n4", "192.0.2.3"));
    assert_eq!(ours.orders("limited"), 2);
    assert_eq!(authority.directory.asked("order-plz"), 4);
}

#[test]
fn a_name_that_cannot_be_proven_is_not_ordered_at_each_handshake() {
    let authority = Authority::start();
    // On demand there is no time for a record: nothing else may be used here.
    let more = "retry = '1h'\non_demand = true\nchallenge = 'dns-01'\nnames = ['x.ours.test']\n[dns.hook]\ncommand = '/bin/false'";
    let ours = Ours::start(&authority, more);
    eventually("a failure", || (ours.orders("failed") == 1).then_some(()));
    for _ in 0..10 {
        assert!(ours.handshake("new.ours.test", "192.0.2.1").is_none());
    }
    assert_eq!(ours.orders("failed"), 2);
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn only_so_many_certificates_are_kept() {
    let authority = Authority::start();
    let more = format!("on_demand_certificates = 1\n{ON_DEMAND}");
    let ours = Ours::start(&authority, &more);
    assert!(ours.handshake("n1.ours.test", "192.0.2.1").is_some());
    assert!(ours.handshake("n2.ours.test", "192.0.2.1").is_none());
    assert!(ours.handshake("n1.ours.test", "192.0.2.1").is_some());
}

#[test]
fn a_name_that_is_ordered_anyhow_is_ordered_once() {
    let authority = Authority::start();
    let gate = authority.directory.hold();
    let ours = Ours::start(&authority, ON_DEMAND);
    eventually("an order", || {
        (authority.directory.asked("order-plz") == 1).then_some(())
    });
    let wait = ours.ask("a.ours.test", "192.0.2.1").unwrap();
    drop(gate);
    wait.blocking_recv().unwrap();
    assert!(ours.keyring.find("a.ours.test").is_some());
    assert!(ours.handshake("b.ours.test", "192.0.2.1").is_some());
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn after_a_panic_of_what_orders_it_goes_on_without_what_made_it_panic() {
    let authority = Authority::start();
    let ours = Ours::start(&authority, ON_DEMAND);
    let before = ours.certificate("a.ours.test");
    assert!(ours.handshake(PANICS, "192.0.2.1").is_none());
    assert_eq!(ours.panics(), 1);
    assert!(ours.handshake("new.ours.test", "192.0.2.2").is_some());
    let served = ours.keyring.find("a.ours.test").unwrap();
    assert!(served.is_same(&before), "nothing is ordered anew");
    assert_eq!(authority.directory.asked("order-plz"), 2);
}

#[test]
fn a_name_whose_order_was_refused_for_now_may_be_had_on_demand() {
    let authority = Authority::start();
    authority.directory.refuse([Refusal::Limited(3600)]);
    let ours = Ours::start(&authority, ON_DEMAND);
    eventually("a failure", || (ours.orders("failed") == 1).then_some(()));
    assert!(ours.handshake("a.ours.test", "192.0.2.1").is_some());
    assert_eq!(authority.directory.asked("order-plz"), 2);
}
