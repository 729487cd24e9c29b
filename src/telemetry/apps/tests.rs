use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn following(apps: usize, always: &[&str]) -> Apps {
    let following = Apps::new();
    following.follow(&Config {
        apps,
        always: always.iter().map(|name| id(name)).collect(),
        ..Config::default()
    });
    following
}

fn id(name: &str) -> WorkloadId {
    WorkloadId::parse(name).unwrap()
}

impl Apps {
    fn app(&self, name: &str) -> Arc<Load> {
        self.load(AppKind::App, id(name))
    }

    /// Lets so many requests to `load` end, whether they were let in or not.
    fn serve(&self, load: &Load, requests: usize) {
        for _request in 0..requests {
            let served = Served {
                status: 200,
                took: 1_500_000_000,
                received: 3,
                sent: 4,
            };
            self.served(load, served);
        }
    }

    fn rank_now(&self) {
        self.rank(&mut self.ranking());
    }

    /// How many requests each series shows.
    fn requests(&self) -> HashMap<(AppKind, String), u64> {
        let ranking = self.ranking();
        let shown = self.shown(&ranking);
        let number = shown.len();
        let requests: HashMap<_, _> = shown
            .into_iter()
            .map(|(kind, app, totals)| ((kind, app.to_owned()), totals.0[1]))
            .collect();
        assert_eq!(requests.len(), number, "there is a series twice");
        requests
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, u64)]) {
        let mut shown: Vec<_> = self
            .requests()
            .into_iter()
            .filter(|((kind, _), _)| *kind == AppKind::App)
            .map(|((_, app), requests)| (app, requests))
            .collect();
        shown.sort();
        let shown: Vec<_> = shown.iter().map(|(app, count)| (&**app, *count)).collect();
        assert_eq!(shown, expected);
    }
}

#[test]
fn the_busiest_apps_have_series_and_the_rest_is_one() {
    let apps = following(2, &[]);
    let [a, b, c] = ["a", "b", "c"].map(|name| apps.app(name));
    apps.serve(&a, 10);
    apps.serve(&b, 20);
    apps.serve(&c, 5);
    apps.rank_now();
    apps.check(&[("a", 0), ("b", 0), ("other", 35)]);
    for load in [&a, &b, &c] {
        apps.serve(load, 1);
    }
    apps.check(&[("a", 1), ("b", 1), ("other", 36)]);
}

#[test]
fn an_app_that_becomes_busier_takes_the_place_of_the_weakest_and_nothing_goes_down() {
    let apps = following(1, &[]);
    let [a, b] = ["a", "b"].map(|name| apps.app(name));
    apps.serve(&a, 10);
    apps.rank_now();
    apps.serve(&a, 10);
    apps.serve(&b, 15);
    apps.rank_now();
    apps.check(&[("a", 10), ("other", 25)]);
    apps.serve(&b, 100);
    apps.rank_now();
    apps.check(&[("b", 0), ("other", 125)]);
    apps.serve(&a, 1000);
    apps.rank_now();
    apps.check(&[("a", 10), ("other", 1125)]);
}

#[test]
fn what_a_slow_thread_counts_in_a_slot_that_was_taken_away_is_of_the_others() {
    let apps = following(1, &[]);
    let [a, b, c] = ["a", "b", "c"].map(|name| apps.app(name));
    apps.serve(&a, 10);
    apps.rank_now();
    let slot = a.slot();
    apps.serve(&b, 1000);
    apps.rank_now();
    apps.check(&[("b", 0), ("other", 1010)]);
    // As if it had looked for its slot before.
    a.count_in(slot);
    apps.serve(&a, 1);
    a.count_in(0);
    apps.check(&[("b", 0), ("other", 1011)]);
    apps.serve(&c, 100_000);
    apps.rank_now();
    assert_eq!(c.slot(), slot, "it has rested for a round");
    apps.check(&[("c", 0), ("other", 101_011)]);
}

#[test]
fn an_app_that_is_named_always_has_its_series_and_one_called_other_never() {
    let apps = following(2, &["quiet"]);
    let [a, b, quiet, other] = ["a", "b", "quiet", "other"].map(|name| apps.app(name));
    for (load, requests) in [(&a, 100), (&b, 200), (&quiet, 1), (&other, 1000)] {
        apps.serve(load, requests);
    }
    apps.rank_now();
    apps.check(&[("b", 0), ("other", 1301), ("quiet", 0)]);
    apps.serve(&a, 100_000);
    apps.rank_now();
    apps.check(&[("a", 0), ("other", 101_301), ("quiet", 0)]);
}

#[test]
fn an_app_and_a_function_of_one_name_are_two() {
    let apps = following(9, &[]);
    let (app, function) = (apps.app("a"), apps.load(AppKind::Function, id("a")));
    apps.serve(&app, 1);
    apps.serve(&function, 1);
    apps.rank_now();
    apps.serve(&function, 1);
    let requests = apps.requests();
    assert_eq!(requests[&(AppKind::App, "a".to_owned())], 0);
    assert_eq!(requests[&(AppKind::Function, "a".to_owned())], 1);
    assert_eq!(requests[&(AppKind::App, "other".to_owned())], 1);
    assert_eq!(requests[&(AppKind::Function, "other".to_owned())], 1);
}

#[test]
fn fewer_apps_after_a_reload_keep_the_busiest_and_none_keep_nobody() {
    let apps = following(3, &[]);
    let loads = ["a", "b", "c"].map(|name| apps.app(name));
    for (load, requests) in loads.iter().zip([3, 2, 1]) {
        apps.serve(load, requests);
    }
    apps.rank_now();
    let fewer = |number| {
        let config = Config {
            apps: number,
            ..Config::default()
        };
        apps.follow(&config);
        apps.rank_now();
    };
    fewer(1);
    apps.check(&[("a", 0), ("other", 6)]);
    fewer(0);
    apps.check(&[("other", 6)]);
}

#[test]
fn an_app_that_another_cache_finds_goes_on_with_its_series() {
    let apps = following(2, &[]);
    let old = apps.app("a");
    apps.serve(&old, 5);
    apps.rank_now();
    let new = apps.app("a");
    apps.serve(&new, 5);
    apps.rank_now();
    apps.serve(&old, 1);
    apps.serve(&new, 1);
    apps.check(&[("a", 2), ("other", 10)]);
}

#[test]
fn without_a_scrape_the_loads_of_apps_that_are_gone_are_let_go() {
    let apps = following(2, &[]);
    for number in 0..10_000 {
        drop(apps.app(&format!("a{number}")));
    }
    assert!(apps.fresh.lock().unwrap().len() <= 64);
}

#[test]
fn time_and_octets_are_added_up_too() {
    let apps = following(1, &[]);
    let a = apps.app("a");
    apps.serve(&a, 1);
    apps.rank_now();
    apps.serve(&a, 2);
    let families = apps.families();
    let of_a = |name: &str| {
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let is_a = |pair: &prometheus::proto::LabelPair| pair.value() == "a";
        let mut series = family.get_metric().iter();
        let series = series.find(|series| series.get_label().iter().any(is_a));
        series.unwrap().get_counter().get_value()
    };
    assert_eq!(of_a("m3o_ingress_app_request_duration_seconds_total"), 3.0);
    assert_eq!(of_a("m3o_ingress_app_request_body_bytes_total"), 6.0);
    assert_eq!(of_a("m3o_ingress_app_response_body_bytes_total"), 8.0);
}

/// What may happen to apps.
#[derive(Debug, Clone)]
enum Event {
    /// So many requests to one come and end.
    Serve(usize, usize),
    /// One is pushed out of the cache while nothing is in flight.
    Forget(usize),
    Rank,
    Follow(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..12_usize, 1..300_usize).prop_map(|(app, requests)| Event::Serve(app, requests)),
        1 => (0..12_usize).prop_map(Event::Forget),
        4 => Just(Event::Rank),
        1 => (0..6_usize).prop_map(Event::Follow),
    ]
}

proptest! {
    /// Whatever apps come and go: no series goes down, none is there for an app that has not been,
    /// there are no more than there may be, and every request is counted once.
    #[test]
    fn no_series_ever_goes_down_and_every_request_is_counted_once(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let apps = following(3, &[]);
        let mut most = 3;
        let mut loads: Vec<Option<Arc<Load>>> = vec![None; 12];
        let mut served = 0;
        let mut last: HashMap<(AppKind, String), u64> = HashMap::new();
        for event in events {
            match event {
                Event::Serve(app, requests) => {
                    // As the cache does: a load that somebody holds is found again.
                    let held = apps.ranking().labelled.iter().find_map(|labelled| {
                        (labelled.app.id == id(&format!("a{app}"))).then(|| Arc::clone(&labelled.loads[0]))
                    });
                    let load = loads[app].get_or_insert_with(|| {
                        held.unwrap_or_else(|| apps.app(&format!("a{app}")))
                    });
                    apps.serve(load, requests);
                    served += requests as u64;
                }
                Event::Forget(app) => loads[app] = None,
                Event::Rank => apps.rank_now(),
                Event::Follow(number) => {
                    most = number;
                    apps.follow(&Config { apps: number, ..Config::default() });
                    apps.rank_now();
                }
            }
            let now = apps.requests();
            prop_assert!(now.len() <= 2 + most.max(3));
            for (series, requests) in &now {
                let before = last.get(series).copied().unwrap_or_default();
                prop_assert!(*requests >= before, "{series:?}: {before}, then {requests}");
            }
            last.extend(now.clone());
            // What was shown of those that have no series now counts too.
            prop_assert_eq!(last.values().sum::<u64>(), served);
        }
    }
}
