//! The series of certificates that are ordered from an authority.

use prometheus::{IntCounter, Registry};

use super::metrics::{counters, each, register};

/// What became of an order for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// There is a certificate.
    Issued,
    /// There is none.
    Failed,
    /// It was not placed: too many were asked for.
    Limited,
}

impl Order {
    const ALL: [Self; 3] = [Self::Issued, Self::Failed, Self::Limited];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Failed => "failed",
            Self::Limited => "limited",
        }
    }
}

/// The series, each ready to be counted.
#[derive(Debug)]
pub struct Orders(Vec<IntCounter>);

impl Orders {
    /// All at zero, shown by `registry`.
    pub(super) fn new(registry: &Registry) -> Self {
        let orders = counters(
            "m3o_ingress_acme_orders_total",
            "Orders for certificates, by what became of them",
            "result",
        );
        let all = each(&orders, Order::ALL.map(Order::as_str));
        register(registry, Box::new(orders));
        Self(all)
    }

    /// Counts one order.
    pub fn ended(&self, order: Order) {
        self.0[order as usize].inc();
    }
}
