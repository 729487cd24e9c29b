//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections against their limits. Taken once a connection, never on the path of a request.
#[derive(Debug)]
pub struct Permits {
    limit: AtomicUsize,
    per_peer: AtomicUsize,
    taken: AtomicUsize,
    peers: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `limits.connections` is reached.
    Full,
    /// `limits.per_peer` is reached by this address.
    PeerFull,
}

impl Permits {
    /// At most `limit` connections in all and `per_peer` from one address.
    #[must_use]
    pub fn new(limit: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            per_peer: AtomicUsize::new(per_peer),
            taken: AtomicUsize::new(0),
            peers: Mutex::new(HashMap::new()),
        })
    }

    /// Other limits from now on. Whoever is in stays, also where there are too many.
    pub fn set_limits(&self, limit: usize, per_peer: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.per_peer.store(per_peer, Ordering::Relaxed);
    }

    /// Takes a permit for a connection of `peer`.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Permit, Refused> {
        self.take_unnamed()?.of(peer)
    }

    /// Takes a permit for a connection that counts for no address, or for none [yet](Permit::of).
    ///
    /// # Errors
    /// When the limit in all is reached.
    pub fn take_unnamed(self: &Arc<Self>) -> Result<Permit, Refused> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        Ok(Permit {
            permits: Arc::clone(self),
            peer: None,
        })
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Connections open right now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    /// `None`: it counts in all, and for no address.
    peer: Option<IpAddr>,
}

impl Permit {
    /// Counts it for `peer` from now on; it was unnamed before.
    ///
    /// # Errors
    /// When this address has as many as it may; the permit is given back.
    pub fn of(mut self, peer: IpAddr) -> Result<Self, Refused> {
        // An IPv4 client of a dual-stack socket is the same client.
        let peer = peer.to_canonical();
        let mut peers = self.permits.peers();
        let count = peers.entry(peer).or_insert(0);
        if *count >= self.permits.per_peer.load(Ordering::Relaxed) {
            drop(peers);
            return Err(Refused::PeerFull);
        }
        *count += 1;
        drop(peers);
        self.peer = Some(peer);
        Ok(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(peer) = self.peer else {
            return;
        };
        let mut peers = self.permits.peers();
        if let Some(count) = peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_in_all_and_for_each_peer_and_given_back() {
        let permits = Permits::new(3, 2);
        let peer = |last| IpAddr::from([192, 0, 2, last]);
        let first = permits.take(peer(1)).unwrap();
        let _second = permits.take(peer(1)).unwrap();
        assert_eq!(permits.take(peer(1)).unwrap_err(), Refused::PeerFull);
        let _third = permits.take(peer(2)).unwrap();
        assert_eq!(permits.take(peer(3)).unwrap_err(), Refused::Full);
        drop(first);
        assert_eq!(permits.open(), 2);
        assert!(permits.take(peer(1)).is_ok());
    }

    #[test]
    fn a_permit_may_count_for_an_address_later_or_never() {
        let permits = Permits::new(3, 1);
        let peer = IpAddr::from([192, 0, 2, 1]);
        let unnamed = permits.take_unnamed().unwrap();
        let named = permits.take_unnamed().unwrap().of(peer).unwrap();
        let third = permits.take_unnamed().unwrap();
        assert_eq!(permits.take_unnamed().unwrap_err(), Refused::Full);
        assert_eq!(third.of(peer).unwrap_err(), Refused::PeerFull);
        assert_eq!(permits.open(), 2, "what is refused is given back");
        drop(unnamed);
        assert_eq!(permits.take(peer).unwrap_err(), Refused::PeerFull);
        drop(named);
        assert_eq!(permits.open(), 0);
        assert!(permits.take(peer).is_ok());
    }

    #[test]
    fn other_limits_hold_for_the_next_one_and_turn_nobody_out() {
        let permits = Permits::new(9, 9);
        let peer = |last| IpAddr::from([192, 0, 2, last]);
        let held: Vec<_> = (1..=3)
            .map(|last| permits.take(peer(last)).unwrap())
            .collect();
        permits.set_limits(2, 1);
        assert_eq!(permits.open(), 3);
        assert_eq!(permits.take(peer(4)).unwrap_err(), Refused::Full);
        permits.set_limits(9, 1);
        assert_eq!(permits.take(peer(1)).unwrap_err(), Refused::PeerFull);
        drop(held);
        assert!(permits.take(peer(1)).is_ok());
        assert_eq!(permits.open(), 0, "nothing is counted twice");
    }

    #[test]
    fn an_address_mapped_into_ipv6_is_the_same_peer() {
        let permits = Permits::new(9, 1);
        let _one = permits.take("192.0.2.1".parse().unwrap()).unwrap();
        let mapped = permits.take("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(mapped.unwrap_err(), Refused::PeerFull);
    }
}
