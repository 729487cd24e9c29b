use std::time::Duration;

use governor::clock::FakeRelativeClock;

use super::*;

fn rate(text: &str) -> Rate {
    Rate::try_from(text.to_owned()).unwrap()
}

/// The rates of `adjust`, and the time that they go by.
fn rates(adjust: impl FnOnce(&mut Config)) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
    let mut config = Config::default();
    adjust(&mut config);
    let clock = FakeRelativeClock::default();
    (Rates::by(&config, &clock).unwrap(), clock)
}

fn of_peers(text: &str, capacity: usize) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
    rates(|config| {
        config.peer = Some(rate(text));
        config.capacity = capacity;
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn without_a_rate_there_is_nothing_to_ask() {
    assert!(Rates::new(&Config::default()).is_none());
    let capacity = Config {
        capacity: 8,
        exempt: vec!["10.0.0.0/8".parse().unwrap()],
        ..Config::default()
    };
    assert!(Rates::new(&capacity).is_none());
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let (rates, clock) = of_peers("2/s burst 4", 64);
    let client = ip("192.0.2.1");
    let standing = |left, reset| Standing {
        scope: Scope::Peer,
        quota: 4,
        window: 2,
        left,
        reset,
    };
    for (left, reset) in [(3, 1), (2, 1), (1, 2), (0, 2)] {
        assert_eq!(rates.peer(client), Ok(Some(standing(left, reset))));
    }
    assert_eq!(rates.peer(client), Err(Exceeded(standing(0, 1))));
    // What is refused costs nothing.
    assert_eq!(rates.peer(client), Err(Exceeded(standing(0, 1))));
    clock.advance(Duration::from_millis(499));
    assert!(rates.peer(client).is_err());
    clock.advance(Duration::from_millis(1));
    assert_eq!(rates.peer(client), Ok(Some(standing(0, 2))));
    assert!(rates.peer(client).is_err());
    clock.advance(Duration::from_secs(9));
    assert_eq!(rates.peer(client), Ok(Some(standing(3, 1))));
}

#[test]
fn whoever_waits_as_long_as_it_is_told_is_let_through() {
    let (rates, clock) = of_peers("7/m burst 3", 64);
    let client = ip("192.0.2.1");
    for _ in 0..20 {
        if let Err(Exceeded(standing)) = rates.peer(client) {
            assert!(standing.left == 0 && standing.reset <= 9, "{standing:?}");
            clock.advance(Duration::from_secs(standing.reset.into()));
            rates.peer(client).unwrap();
        }
        clock.advance(Duration::from_millis(130));
    }
}

#[test]
fn one_client_is_an_address_of_ipv4_and_a_network_of_ipv6() {
    let same = |one: &str, other: &str| subscriber(ip(one)) == subscriber(ip(other));
    assert!(!same("192.0.2.1", "192.0.2.2"));
    assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"));
    assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
    assert!(!same("2001:db8::", "0.0.0.0"));

    let (rates, _) = of_peers("1/h", 64);
    assert!(rates.peer(ip("2001:db8:0:1::1")).is_ok());
    assert!(rates.peer(ip("2001:db8:0:1::2")).is_err());
    assert!(rates.peer(ip("2001:db8:0:2::1")).is_ok());
}

#[test]
fn peers_keys_and_apps_are_counted_apart() {
    let (rates, _) = rates(|config| {
        config.peer = Some(rate("1/h"));
        config.key = Some(rate("1/h"));
        config.app = Some(rate("1/h"));
        let name = AppName::try_from("busy".to_owned()).unwrap();
        config.apps.insert(name, rate("3/h"));
    });
    let (blog, busy) = ["blog", "busy"]
        .map(|id| WorkloadId::parse(id).unwrap())
        .into();
    assert!(rates.peer(ip("192.0.2.1")).is_ok());
    assert!(rates.peer(ip("192.0.2.1")).is_err());
    assert!(rates.peer(ip("192.0.2.2")).is_ok());
    for key in ["one", "two"].map(Secret::new) {
        assert!(rates.key(&key).is_ok());
        assert!(rates.key(&key).is_err());
    }
    // An app and a function of the same name are two.
    for kind in ["app", "function"] {
        assert!(rates.app(kind, &blog).is_ok());
        assert!(rates.app(kind, &blog).is_err());
        let busy: Vec<bool> = (0..4).map(|_| rates.app(kind, &busy).is_ok()).collect();
        assert_eq!(busy, [true, true, true, false]);
    }
}

#[test]
fn a_rate_that_is_not_there_is_for_nobody() {
    let (rates, _) = rates(|config| {
        let name = AppName::try_from("busy".to_owned()).unwrap();
        config.apps.insert(name, rate("1/h"));
        config.exempt = vec!["10.0.0.0/8".parse().unwrap()];
    });
    assert_eq!(rates.peer(ip("192.0.2.1")), Ok(None));
    assert_eq!(rates.key(&Secret::new("key")), Ok(None));
    let blog = WorkloadId::parse("blog").unwrap();
    assert_eq!(rates.app("app", &blog), Ok(None));
    assert!(rates.exempt(ip("10.1.2.3")) && rates.exempt(ip("::ffff:10.1.2.3")));
    assert!(!rates.exempt(ip("192.0.2.1")));
}

/// One of many addresses that were made up.
fn made_up(number: u32) -> IpAddr {
    let first = std::net::Ipv4Addr::new(198, 18, 0, 0).to_bits();
    std::net::Ipv4Addr::from_bits(first + number).into()
}

#[test]
fn a_flood_of_addresses_sets_nobody_free_who_has_used_up_its_rate() {
    let (rates, _) = of_peers("10/h", 1024);
    let heavy = ip("192.0.2.1");
    let sent = (0..20).filter(|_| rates.peer(heavy).is_ok()).count();
    assert_eq!(sent, 10);
    for number in 0..5000 {
        let _whether = rates.peer(made_up(number));
        assert!(rates.peer(heavy).is_err(), "after {number}");
    }
}

#[test]
fn a_flood_of_addresses_gets_no_more_than_all_places_together() {
    let (rates, _) = of_peers("4/h", 64);
    // Each comes again long after its place was taken over by another.
    let passed = (0..10_000).filter(|number| rates.peer(made_up(number % 1000)).is_ok());
    assert!(passed.count() <= 64 * 4);
}

#[test]
fn a_place_whose_time_has_passed_is_as_good_as_an_empty_one() {
    let (rates, clock) = of_peers("1/s", 8);
    for round in 0..100 {
        for number in 0..8 {
            assert!(rates.peer(made_up(round * 8 + number)).is_ok());
        }
        assert!(
            rates.peer(made_up(9999)).is_err(),
            "there is room for eight"
        );
        clock.advance(Duration::from_secs(1));
    }
}

#[test]
fn who_only_looks_spends_nothing() {
    let (rates, clock) = of_peers("2/m", 8);
    let a = ip("192.0.2.1");
    let left = |checked: Checked| checked.map(|standing| standing.unwrap().left);
    for _ in 0..3 {
        assert_eq!(left(rates.foresee_peer(a)), Ok(1));
    }
    assert_eq!(left(rates.peer(a)), Ok(1));
    assert_eq!(rates.foresee_peer(a), rates.foresee_peer(a));
    let foreseen = rates.foresee_peer(a);
    assert_eq!(foreseen, rates.peer(a));
    let refused = rates.foresee_peer(a);
    assert!(refused.is_err());
    assert_eq!(refused, rates.peer(a));
    clock.advance(Duration::from_secs(30));
    assert_eq!(left(rates.foresee_peer(a)), Ok(0));
    let id = WorkloadId::parse("blog").unwrap();
    assert_eq!(rates.foresee_app(0, &id), Ok(None));
    assert_eq!(rates.foresee_key(&Secret::new("k")), Ok(None));
}
