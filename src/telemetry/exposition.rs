//! Series of our own as prometheus writes them.

use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// All series of one name, which share a help text.
pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    series: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

/// A counter that stands at `value`.
pub(super) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut series = labelled(labels);
    series.set_counter(counter);
    series
}

/// A gauge that shows `value`.
pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut series = labelled(labels);
    series.set_gauge(gauge);
    series
}

/// A histogram as it is now.
pub(super) fn histogram(labels: &[(&str, &str)], shown: Histogram) -> Metric {
    let mut series = labelled(labels);
    series.set_histogram(shown);
    series
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
