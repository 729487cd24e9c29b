//! A histogram that costs two additions to a number of the thread's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto;

use super::shards::Sharded;

/// How many have been so large, and how much they are together.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: &'static Scale,
    cells: Sharded<Cells>,
}

/// Two cache lines, and nobody else's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    /// One for each bound, and one for what is beyond all.
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

const BOUNDS: usize = 14;

/// What is measured, in whole steps.
#[derive(Debug)]
pub(super) struct Scale {
    bounds: [u64; BOUNDS],
    /// The steps in one of what is shown.
    unit: f64,
}

/// Seconds, counted in nanoseconds: the buckets that OpenTelemetry advises for requests.
pub(super) static SECONDS: Scale = Scale {
    bounds: [
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        75_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        750_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        7_500_000_000,
        10_000_000_000,
    ],
    unit: 1e9,
};

/// Octets, from 64 to 4 GiB.
pub(super) static BYTES: Scale = Scale {
    bounds: [
        1 << 6,
        1 << 8,
        1 << 10,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
        1 << 26,
        1 << 28,
        1 << 30,
        1 << 32,
    ],
    unit: 1.0,
};

impl Histogram {
    pub(super) fn new(scale: &'static Scale) -> Self {
        Self {
            scale,
            cells: Sharded::new(),
        }
    }

    /// Counts one that is so many steps.
    pub(super) fn observe(&self, steps: u64) {
        let bounds = &self.scale.bounds;
        let bucket = bounds.iter().position(|bound| steps <= *bound);
        let cells = self.cells.mine();
        cells.add(|cells| &cells.buckets[bucket.unwrap_or(BOUNDS)], 1);
        cells.add(|cells| &cells.sum, steps);
    }

    pub(super) fn observe_time(&self, took: Duration) {
        self.observe(steps(took));
    }

    /// As it is shown. What is counted meanwhile is in the number or not, but never in one bucket alone.
    pub(super) fn to_proto(&self) -> proto::Histogram {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(BOUNDS);
        for (index, bound) in self.scale.bounds.iter().enumerate() {
            cumulative += self.bucket(index);
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(cumulative);
            bucket.set_upper_bound(*bound as f64 / self.scale.unit);
            buckets.push(bucket);
        }
        let sum = self.cells.sum(|cells| cells.sum.load(Ordering::Relaxed));
        let mut shown = proto::Histogram::default();
        shown.set_bucket(buckets);
        shown.set_sample_count(cumulative + self.bucket(BOUNDS));
        shown.set_sample_sum(sum as f64 / self.scale.unit);
        shown
    }

    fn bucket(&self, index: usize) -> u64 {
        self.cells
            .sum(|cells| cells.buckets[index].load(Ordering::Relaxed))
    }
}

/// A time in nanoseconds.
pub(super) fn steps(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_buckets_that_it_is_not_above() {
        let histogram = Histogram::new(&SECONDS);
        for millis in [5, 6, 10_000, 10_001] {
            histogram.observe_time(Duration::from_millis(millis));
        }
        let shown = histogram.to_proto();
        let counts: Vec<u64> = shown
            .get_bucket()
            .iter()
            .map(proto::Bucket::cumulative_count)
            .collect();
        assert_eq!(counts, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert_eq!(shown.get_sample_count(), 4);
        assert!((shown.get_sample_sum() - 20.012).abs() < 1e-9);
        assert_eq!(shown.get_bucket()[0].upper_bound().to_string(), "0.005");
    }

    #[test]
    fn octets_are_shown_as_they_are() {
        let histogram = Histogram::new(&BYTES);
        histogram.observe(0);
        histogram.observe(65);
        histogram.observe(u64::MAX >> 1);
        let shown = histogram.to_proto();
        assert_eq!(shown.get_bucket()[0].cumulative_count(), 1);
        assert_eq!(shown.get_bucket()[1].cumulative_count(), 2);
        assert_eq!(shown.get_bucket()[13].cumulative_count(), 2);
        assert_eq!(shown.get_sample_count(), 3);
        assert_eq!(
            shown.get_bucket()[13].upper_bound().to_string(),
            "4294967296"
        );
    }
}
