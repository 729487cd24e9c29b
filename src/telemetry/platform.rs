//! The series of the embedded platform: its store, and the mail that it sends.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, Registry};

use super::metrics::{counters, gauge, register};

/// The series of the platform. Clones count the same; those that are made by default are shown nowhere.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Writes that are durable.
    pub written: IntCounter,
    /// Writes that the store did not take.
    pub unwritten: IntCounter,
    /// 1 while the store is open, 0 while its file or disk fails.
    pub store_open: IntGauge,
    /// Hits of short links that are not written yet.
    pub pending_hits: IntGauge,
    /// Mails that wait to leave.
    pub mail_queue: IntGauge,
    /// Mails that left.
    pub mail_sent: IntCounter,
    /// Times that one did not leave, and is tried again.
    pub mail_retried: IntCounter,
    /// Mails that were given up.
    pub mail_given_up: IntCounter,
}

impl Platform {
    /// All at zero, shown by `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let (series, collectors) = Self::make();
        for collector in collectors {
            register(registry, collector);
        }
        series
    }

    fn make() -> (Self, Vec<Box<dyn Collector>>) {
        let writes = counters(
            "m3o_ingress_store_writes_total",
            "Writes to the platform's store, by whether they are durable",
            "result",
        );
        let mails = counters(
            "m3o_ingress_mails_total",
            "Attempts to send a mail of the platform, by what became of it",
            "result",
        );
        let series = Self {
            written: writes.with_label_values(&["done"]),
            unwritten: writes.with_label_values(&["failed"]),
            store_open: gauge(
                "m3o_ingress_store_open",
                "1 while the platform's store can be used, 0 while its file or disk fails",
            ),
            pending_hits: gauge(
                "m3o_ingress_link_hits_pending",
                "Hits of short links that are not written yet",
            ),
            mail_queue: gauge("m3o_ingress_mail_queue_length", "Mails that wait to leave"),
            mail_sent: mails.with_label_values(&["sent"]),
            mail_retried: mails.with_label_values(&["later"]),
            mail_given_up: mails.with_label_values(&["given_up"]),
        };
        series.store_open.set(1);
        let collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(writes),
            Box::new(mails),
            Box::new(series.store_open.clone()),
            Box::new(series.pending_hits.clone()),
            Box::new(series.mail_queue.clone()),
        ];
        (series, collectors)
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::make().0
    }
}
