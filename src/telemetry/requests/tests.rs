use proptest::prelude::*;

use super::*;

fn ended(asked: Asked, route: RouteKind, status: u16) -> Ended {
    Ended {
        asked,
        route,
        status,
        took: Duration::from_millis(7),
        received: None,
        sent: 5,
    }
}

fn limited_to(combinations: usize) -> Requests {
    let requests = Requests::new();
    requests.limit_to(combinations);
    requests
}

/// The labels of each series of durations, joined, and how many it has counted.
fn durations(requests: &Requests) -> Vec<(String, u64)> {
    let families = requests.families();
    let family = families
        .iter()
        .find(|family| family.name() == "http_server_request_duration_seconds");
    let series = family.unwrap().get_metric().iter().map(|series| {
        let labels: Vec<&str> = series.get_label().iter().map(|pair| pair.value()).collect();
        let count = series.get_histogram().get_sample_count();
        (labels.join(" "), count)
    });
    series.collect()
}

#[test]
fn a_request_is_told_by_method_status_route_version_and_scheme() {
    let requests = limited_to(9);
    let asked = Asked::by(&Method::POST, Version::HTTP_2, Scheme::Https);
    requests.end(&ended(asked, RouteKind::Api, 429));
    requests.end(&ended(asked, RouteKind::Api, 429));
    let made_up = Method::from_bytes(b"BREW").unwrap();
    let asked = Asked::by(&made_up, Version::HTTP_10, Scheme::Http);
    requests.end(&ended(asked, RouteKind::App, 299));
    requests.end(&ended(Asked::badly(Scheme::Http), RouteKind::Unknown, 999));
    let expected = [
        ("POST 429 api 2 https", 2),
        ("_OTHER 2xx app 1.0 http", 1),
        ("_OTHER 5xx unknown  http", 1),
    ];
    let expected = expected.map(|(labels, count)| (labels.to_owned(), count));
    assert_eq!(durations(&requests), expected);
}

#[test]
fn every_status_is_in_its_class() {
    for status in 0..=u16::MAX {
        let state = STATE_OF[usize::from(status).min(599)];
        let label = state_label(state);
        if STATUSES.contains(&status) {
            assert_eq!(label, status.to_string());
        } else {
            assert_eq!(label, CLASSES[class(status)], "{status}");
        }
    }
}

#[test]
fn when_there_are_too_many_combinations_new_ones_keep_scheme_route_and_class() {
    let requests = limited_to(2);
    let get = Asked::by(&Method::GET, Version::HTTP_11, Scheme::Http);
    for status in [200, 201, 202, 203, 200] {
        requests.end(&ended(get, RouteKind::App, status));
    }
    let expected = [
        ("GET 200 app 1.1 http", 2),
        ("GET 201 app 1.1 http", 1),
        ("_OTHER 2xx app  http", 2),
    ];
    let expected = expected.map(|(labels, count)| (labels.to_owned(), count));
    assert_eq!(durations(&requests), expected);
}

#[test]
fn whatever_is_asked_and_answered_the_series_are_no_more_than_there_may_be() {
    let requests = limited_to(100);
    let mut all = 0;
    for method in 0..METHODS.len() {
        for version in 0..VERSIONS.len() {
            for scheme in SCHEMES {
                for route in RouteKind::ALL {
                    for status in (100..600).step_by(7) {
                        let asked = Asked {
                            method: u8::try_from(method).unwrap(),
                            version: u8::try_from(version).unwrap(),
                            scheme,
                        };
                        requests.end(&ended(asked, route, status));
                        all += 1;
                    }
                }
            }
        }
    }
    let told = durations(&requests);
    assert_eq!(told.len(), 100 + COARSE);
    assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), all);
}

#[test]
fn each_body_is_counted_once_and_a_request_without_one_has_none() {
    let requests = limited_to(9);
    let get = Asked::by(&Method::GET, Version::HTTP_11, Scheme::Http);
    requests.end(&ended(get, RouteKind::App, 200));
    requests.end(&Ended {
        received: Some(300),
        ..ended(get, RouteKind::App, 200)
    });
    let count = |name: &str| {
        let families = requests.families();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let app = &family.get_metric()[RouteKind::App as usize];
        let histogram = app.get_histogram();
        (histogram.get_sample_count(), histogram.get_sample_sum())
    };
    assert_eq!(count("http_server_request_body_size_bytes"), (1, 300.0));
    assert_eq!(count("http_server_response_body_size_bytes"), (2, 10.0));
}

proptest! {
    /// Two combinations never share a series while there is room, and none is lost.
    #[test]
    fn each_combination_has_its_own_place(
        one in combination(),
        other in combination(),
    ) {
        prop_assert_eq!(one.place() == other.place(), one == other);
        prop_assert!(one.place() < PLACES);
        prop_assert_eq!(one.coarse().coarse(), one.coarse());
    }
}

fn combination() -> impl Strategy<Value = Combination> {
    let method = 0..u8::try_from(METHODS.len()).unwrap();
    let version = 0..u8::try_from(VERSIONS.len()).unwrap();
    let state = 0..u8::try_from(STATES).unwrap();
    let route = 0..RouteKind::COUNT;
    (method, version, 0..2_usize, route, state).prop_map(
        |(method, version, scheme, route, state)| Combination {
            asked: Asked {
                method,
                version,
                scheme: SCHEMES[scheme],
            },
            route: RouteKind::ALL[route],
            state,
        },
    )
}
