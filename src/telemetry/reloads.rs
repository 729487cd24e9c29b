//! The series of reloads of the configuration.

use std::time::SystemTime;

use prometheus::{IntCounter, IntGauge, Registry};

use super::metrics::{counters, each, gauge, register};

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Something is different now.
    Applied,
    /// It was as it is already.
    Unchanged,
    /// It was no good: what was there before stays.
    Refused,
}

impl Reload {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The series, each ready to be counted.
#[derive(Debug)]
pub struct Reloads {
    results: Vec<IntCounter>,
    is_good: IntGauge,
    loaded: IntGauge,
}

impl Reloads {
    /// The configuration of the start is the one that was loaded last.
    pub(super) fn new(registry: &Registry) -> Self {
        let results = counters(
            "m3o_ingress_config_reloads_total",
            "Reloads of the configuration, by what became of them",
            "result",
        );
        let reloads = Self {
            results: each(&results, Reload::ALL.map(Reload::as_str)),
            is_good: gauge(
                "m3o_ingress_config_last_reload_successful",
                "Whether the configuration could be taken over when it was read last",
            ),
            loaded: gauge(
                "m3o_ingress_config_last_reload_success_timestamp_seconds",
                "When the configuration was taken over last, at the start or by a reload",
            ),
        };
        register(registry, Box::new(results));
        register(registry, Box::new(reloads.is_good.clone()));
        register(registry, Box::new(reloads.loaded.clone()));
        reloads.is_good.set(1);
        reloads.loaded.set(now());
        reloads
    }

    /// Counts one reload.
    pub fn ended(&self, result: Reload) {
        self.results[result as usize].inc();
        match result {
            Reload::Applied | Reload::Unchanged => {
                self.is_good.set(1);
                self.loaded.set(now());
            }
            Reload::Refused => self.is_good.set(0),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn the_last_reload_says_whether_it_was_good() {
        let metrics = Metrics::new();
        let shows = |line: &str| {
            let text = String::from_utf8(metrics.to_text()).unwrap();
            assert!(text.contains(line), "{line} is not in\n{text}");
        };
        shows("m3o_ingress_config_last_reload_successful 1\n");
        metrics.reloads.ended(Reload::Refused);
        shows("m3o_ingress_config_last_reload_successful 0\n");
        shows(r#"m3o_ingress_config_reloads_total{result="refused"} 1"#);
        metrics.reloads.ended(Reload::Unchanged);
        shows("m3o_ingress_config_last_reload_successful 1\n");
    }
}
