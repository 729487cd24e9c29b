//! Requests of ours, to backends and to the upstream, until the head of their answer is here.

use std::array::from_fn;

use http::StatusCode;
use prometheus::proto::{MetricFamily, MetricType};
use tokio::time::Instant;

use super::access::Call;
use super::exchange;
use super::exposition;
use super::histogram::{Histogram, SECONDS};
use super::metrics::Metrics;
use super::requests::{CLASSES, class};

/// Whom we ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The M3O API, over the network.
    Upstream,
    /// The server of an app or function.
    Backend,
}

impl Side {
    const ALL: [Self; 2] = [Self::Upstream, Self::Backend];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Backend => "backend",
        }
    }
}

/// What became of it: the class of its answer, none in time or at all, or the client of ours left first.
const OUTCOMES: usize = CLASSES.len() + 2;
const NONE: usize = CLASSES.len();
const LEFT: usize = NONE + 1;

fn outcome_label(outcome: usize) -> &'static str {
    match outcome {
        NONE => "none",
        LEFT => "left",
        class => CLASSES[class],
    }
}

/// What is counted of them.
#[derive(Debug)]
pub(super) struct Clients([[Histogram; OUTCOMES]; Side::ALL.len()]);

impl Clients {
    pub(super) fn new() -> Self {
        Self(from_fn(|_side| {
            from_fn(|_outcome| Histogram::new(&SECONDS))
        }))
    }

    pub(super) fn family(&self) -> MetricFamily {
        let series = Side::ALL.iter().flat_map(|side| {
            let outcomes = self.0[*side as usize].iter().enumerate();
            outcomes.map(|(outcome, histogram)| {
                let labels = [("class", outcome_label(outcome)), ("side", side.as_str())];
                exposition::histogram(&labels, histogram.to_proto())
            })
        });
        exposition::family(
            "http_client_request_duration_seconds",
            "Time until a backend or the upstream has answered with a head, by the class of its status",
            MetricType::HISTOGRAM,
            series.collect(),
        )
    }
}

/// A request of ours that is on its way. It is counted when it is dropped.
#[derive(Debug)]
pub struct Asking<'a> {
    metrics: &'a Metrics,
    side: Side,
    began: Instant,
    outcome: usize,
    /// What is told of it beside that it is counted.
    call: Option<&'a mut Call>,
}

impl<'a> Asking<'a> {
    /// It begins now.
    #[must_use]
    pub fn new(metrics: &'a Metrics, side: Side) -> Self {
        Self::telling(Instant::now(), metrics, side, None)
    }

    /// It has begun then, and what becomes of it is told in `call`.
    pub(super) fn telling(
        began: Instant,
        metrics: &'a Metrics,
        side: Side,
        call: Option<&'a mut Call>,
    ) -> Self {
        Self {
            metrics,
            side,
            began,
            outcome: NONE,
            call,
        }
    }

    /// The head of an answer is here.
    pub fn answered(mut self, status: StatusCode) {
        self.outcome = class(status.as_u16());
        if let Some(call) = &mut self.call {
            call.status = Some(status);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.outcome == NONE && exchange::is_client_leaving() {
            self.outcome = LEFT;
        }
        let took = self.began.elapsed();
        if let Some(call) = &mut self.call {
            call.took = Some(took);
        }
        let side = &self.metrics.clients.0[self.side as usize];
        side[self.outcome].observe_time(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_apart() {
        let metrics = Metrics::new();
        let ask = |side| Asking::new(&metrics, side);
        ask(Side::Backend).answered(StatusCode::NOT_FOUND);
        drop(ask(Side::Upstream));
        let leaving = ask(Side::Upstream);
        exchange::client_left(|| drop(leaving));
        let text = String::from_utf8(metrics.to_text()).unwrap();
        for labels in [
            r#"class="4xx",side="backend""#,
            r#"class="none",side="upstream""#,
            r#"class="left",side="upstream""#,
        ] {
            let line = format!("http_client_request_duration_seconds_count{{{labels}}} 1\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
