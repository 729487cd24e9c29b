//! The series of addresses of backends that are left out for a while.

use prometheus::{IntCounter, IntGauge, Registry};

use super::metrics::{counter, gauge, register};

/// The series, each ready to be counted.
#[derive(Debug)]
pub struct Ejections {
    ejected: IntCounter,
    out: IntGauge,
}

impl Ejections {
    /// All at zero, shown by `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let series = Self {
            ejected: counter(
                "m3o_ingress_backend_ejections_total",
                "Times that an address of a backend was left out for its failures",
            ),
            out: gauge(
                "m3o_ingress_backend_ejected",
                "Addresses of backends that are left out now",
            ),
        };
        register(registry, Box::new(series.ejected.clone()));
        register(registry, Box::new(series.out.clone()));
        series
    }

    /// One more is left out.
    pub fn began(&self) {
        self.ejected.inc();
        self.out.inc();
    }

    /// One is back, or gone from its name.
    pub fn ended(&self) {
        self.out.dec();
    }
}
