//! The series of TLS: handshakes of clients, and the certificates that there are.

use std::collections::BTreeMap;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{counter, counters, each, gauge, register};

/// How a TLS handshake of a client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Both sides agreed, from the beginning.
    Full,
    /// Both sides agreed, on a session of before.
    Resumed,
    /// An authority saw the certificate that it looked for.
    Challenge,
    /// There is no certificate for the name that the client wants.
    UnknownName,
    /// There is no protocol that both speak.
    NoProtocol,
    /// The client spoke plain HTTP.
    NotTls,
    /// The sides do not agree, or the client does not speak TLS.
    Failed,
    /// The client left.
    Left,
    /// It took too long.
    TimedOut,
    /// It had not begun when the drain did.
    Drained,
}

impl Handshake {
    const ALL: [Self; 10] = [
        Self::Full,
        Self::Resumed,
        Self::Challenge,
        Self::UnknownName,
        Self::NoProtocol,
        Self::NotTls,
        Self::Failed,
        Self::Left,
        Self::TimedOut,
        Self::Drained,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Challenge => "challenge",
            Self::UnknownName => "unknown_name",
            Self::NoProtocol => "no_protocol",
            Self::NotTls => "not_tls",
            Self::Failed => "failed",
            Self::Left => "left",
            Self::TimedOut => "timed_out",
            Self::Drained => "drained",
        }
    }
}

/// The series of TLS.
#[derive(Debug)]
pub struct Tls {
    handshakes: Vec<IntCounter>,
    certificates: IntGaugeVec,
    /// Times that other certificates were taken from the folder.
    pub swapped: IntCounter,
    /// Pairs of files that cannot be served as they are now.
    pub bad_pairs: IntGauge,
}

impl Tls {
    /// All series at zero.
    pub(super) fn new(registry: &Registry) -> Self {
        let handshakes = counters(
            "m3o_ingress_tls_handshakes_total",
            "TLS handshakes of clients, by how they ended",
            "result",
        );
        let certificates = IntGaugeVec::new(
            Opts::new(
                "m3o_ingress_tls_certificate_not_after_timestamp_seconds",
                "When a certificate ends; those that end first, and the first of all others",
            ),
            &["certificate"],
        )
        .expect("static name and labels");
        let tls = Self {
            handshakes: each(&handshakes, Handshake::ALL.map(Handshake::as_str)),
            certificates,
            swapped: counter(
                "m3o_ingress_tls_certificates_swapped_total",
                "Times that other certificates were taken from the folder",
            ),
            bad_pairs: gauge(
                "m3o_ingress_tls_bad_pairs",
                "Pairs of certificate and key that cannot be served as they are",
            ),
        };
        register(registry, Box::new(handshakes));
        register(registry, Box::new(tls.certificates.clone()));
        register(registry, Box::new(tls.swapped.clone()));
        register(registry, Box::new(tls.bad_pairs.clone()));
        tls
    }

    /// Counts one handshake that has ended.
    pub fn ended(&self, result: Handshake) {
        self.handshakes[result as usize].inc();
    }

    /// Shows these certificates alone, each with the second in which it ends; of those of one label the
    /// first.
    ///
    /// The caller bounds their number: each is a series of its own.
    pub fn show<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, i64)>) {
        let mut first = BTreeMap::new();
        for (label, ends) in certificates {
            let known = first.entry(label).or_insert(ends);
            *known = ends.min(*known);
        }
        self.certificates.reset();
        for (label, ends) in first {
            self.certificates.with_label_values(&[label]).set(ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn handshakes_are_counted_and_old_certificates_not_shown() {
        let metrics = Metrics::new();
        metrics.tls.ended(Handshake::UnknownName);
        metrics.tls.show([("old", 1), ("other", 2)]);
        let twice = [("twice", 1_800_000_002), ("twice", 1_800_000_001)];
        metrics
            .tls
            .show([twice[0], ("site", 1_800_000_000), twice[1]]);
        let text = String::from_utf8(metrics.to_text()).unwrap();
        for line in [
            r#"m3o_ingress_tls_handshakes_total{result="unknown_name"} 1"#,
            r#"m3o_ingress_tls_handshakes_total{result="drained"} 0"#,
            r#"m3o_ingress_tls_certificate_not_after_timestamp_seconds{certificate="site"} 1800000000"#,
            r#"m3o_ingress_tls_certificate_not_after_timestamp_seconds{certificate="twice"} 1800000001"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"certificate="old""#), "{text}");
    }
}
