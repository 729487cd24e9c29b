//! Which addresses may be dialled: the address connected to is what counts, whatever name led there.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::origin::Reach;
use crate::address::is_public;

/// Checks each address before it is dialled.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow_private: bool,
    /// Our own listeners: a backend there would be a loop. They come and go; all clones share them.
    own: Arc<ArcSwap<Vec<SocketAddr>>>,
}

/// What the guard says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be dialled.
    Permitted,
    /// Backends may not live there.
    Private,
    /// We listen there ourselves.
    Own,
}

impl Guard {
    /// Private addresses only where allowed, and never one of `own`.
    #[must_use]
    pub fn new(allow_private: bool, own: Vec<SocketAddr>) -> Self {
        Self {
            allow_private,
            own: Arc::new(ArcSwap::from_pointee(own)),
        }
    }

    /// Our own listeners are these from now on, for all clones.
    pub fn set_own(&self, own: Vec<SocketAddr>) {
        self.own.store(Arc::new(own));
    }

    /// Whether backends may live at private addresses.
    #[must_use]
    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Whether `address` may be dialled.
    #[must_use]
    pub fn permits(&self, address: SocketAddr, reach: Reach) -> bool {
        self.verdict(address, reach) == Verdict::Permitted
    }

    /// Whether `address` may be dialled, and why not.
    #[must_use]
    pub fn verdict(&self, address: SocketAddr, reach: Reach) -> Verdict {
        let ip = address.ip().to_canonical();
        let is_private = || !self.allow_private && !is_public(ip);
        match reach {
            Reach::Operator => Verdict::Permitted,
            Reach::Proof | Reach::Workload if is_private() => Verdict::Private,
            // Also our own: whether a domain leads here is what is asked.
            Reach::Proof => Verdict::Permitted,
            Reach::Workload if self.is_own(SocketAddr::new(ip, address.port())) => Verdict::Own,
            Reach::Workload => Verdict::Permitted,
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.load().iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && !is_public(address.ip());
            own.port() == address.port() && (everywhere || own.ip() == address.ip())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_and_our_own_are_refused_to_workloads() {
        let own = vec![
            "127.0.0.1:8080".parse().unwrap(),
            "0.0.0.0:9090".parse().unwrap(),
        ];
        let strict = Guard::new(false, own.clone());
        let open = Guard::new(true, own);
        let check = |guard: &Guard, address: &str, expected| {
            let address = address.parse().unwrap();
            assert_eq!(
                guard.permits(address, Reach::Workload),
                expected,
                "{address}"
            );
            assert!(guard.permits(address, Reach::Operator));
            let at_all = guard.allow_private || is_public(address.ip().to_canonical());
            assert_eq!(guard.permits(address, Reach::Proof), at_all, "{address}");
        };
        check(&strict, "8.8.8.8:80", true);
        check(&strict, "127.0.0.1:81", false);
        check(&strict, "[::ffff:169.254.169.254]:80", false);
        check(&open, "127.0.0.1:81", true);
        check(&open, "127.0.0.1:8080", false);
        check(&open, "[::ffff:127.0.0.1]:8080", false);
        check(&open, "10.1.2.3:9090", false);
    }
}
