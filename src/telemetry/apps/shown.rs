//! The series of apps in the words of prometheus.

use prometheus::proto::{MetricFamily, MetricType};

use super::{AppKind, CLASSES, Totals};
use crate::telemetry::exposition::{counter, family};

/// The series of each kind, app and count.
pub(super) fn families(apps: &[(AppKind, &str, Totals)]) -> Vec<MetricFamily> {
    let requests = apps.iter().flat_map(|(kind, app, totals)| {
        CLASSES.iter().zip(totals.0).map(|(class, count)| {
            let labels = [
                ("app", *app),
                ("class", *class),
                ("http_route", kind.route().as_str()),
            ];
            counter(&labels, count as f64)
        })
    });
    let single = |index: usize, unit: f64| {
        let series = apps.iter().map(|(kind, app, totals)| {
            let labels = [("app", *app), ("http_route", kind.route().as_str())];
            counter(&labels, totals.0[index] as f64 / unit)
        });
        series.collect()
    };
    vec![
        family(
            "m3o_ingress_app_requests_total",
            "Requests to the busiest apps, and to all others as one",
            MetricType::COUNTER,
            requests.collect(),
        ),
        family(
            "m3o_ingress_app_request_duration_seconds_total",
            "Time that the requests to an app took together",
            MetricType::COUNTER,
            single(Totals::TOOK, 1e9),
        ),
        family(
            "m3o_ingress_app_request_body_bytes_total",
            "Octets of the bodies that an app was sent",
            MetricType::COUNTER,
            single(Totals::RECEIVED, 1.0),
        ),
        family(
            "m3o_ingress_app_response_body_bytes_total",
            "Octets of the bodies that an app answered with",
            MetricType::COUNTER,
            single(Totals::SENT, 1.0),
        ),
    ]
}
