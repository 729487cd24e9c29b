//! How many requests are in flight to one thing, and how many tunnels lead there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::apps::App;
use super::labels::AppKind;
use super::metrics::Shed;
use crate::id::WorkloadId;

/// What is in flight to one workload, over all workers.
#[derive(Debug, Default)]
pub struct Load {
    requests: AtomicUsize,
    /// Apart, because a tunnel that is idle makes no work.
    tunnels: AtomicUsize,
    /// About how many were served: threads that count at once may lose some.
    served: AtomicU64,
    /// Where its requests are counted.
    slot: AtomicU32,
    /// Whose load it is; `None` where that is no app.
    app: Option<App>,
}

/// One request or tunnel in flight; counted down when dropped.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Request,
    Tunnel,
}

impl Load {
    /// That of `app`.
    pub(super) fn of(app: App) -> Self {
        Self {
            slot: AtomicU32::new(app.common_slot()),
            app: Some(app),
            ..Self::default()
        }
    }

    pub(super) fn app(&self) -> Option<App> {
        self.app
    }

    /// Whether it is that of the app or function of this name.
    #[must_use]
    pub fn is_of(&self, kind: AppKind, id: &WorkloadId) -> bool {
        let app = self.app.as_ref();
        app.is_some_and(|app| app.kind == kind && app.id == *id)
    }

    pub(super) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// From now on its requests are counted in `slot`.
    pub(super) fn count_in(&self, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Counts a request that was answered, also where it was turned away.
    pub(super) fn serve(&self) {
        let served = self.served();
        self.served.store(served + 1, Ordering::Relaxed);
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Counts one more request, unless requests and tunnels are `limit` together, or requests alone
    /// are what pressure has `allowed`.
    ///
    /// # Errors
    /// Which of the two it is.
    pub fn enter(self: &Arc<Self>, limit: usize, allowed: usize) -> Result<InFlight, Shed> {
        // Whoever sees that a request has become a tunnel sees the tunnel.
        let requests = self.requests.fetch_add(1, Ordering::Acquire);
        let place = InFlight {
            load: Arc::clone(self),
            kind: Kind::Request,
        };
        if requests + self.tunnels.load(Ordering::Relaxed) >= limit {
            return Err(Shed::Workload);
        }
        if requests >= allowed {
            return Err(Shed::Overload);
        }
        Ok(place)
    }

    /// Requests and tunnels at this moment.
    #[must_use]
    pub fn now(&self) -> (usize, usize) {
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        (count(&self.requests), count(&self.tunnels))
    }
}

impl InFlight {
    /// Goes on as a tunnel.
    #[must_use]
    pub fn into_tunnel(self) -> Self {
        self.load.tunnels.fetch_add(1, Ordering::Relaxed);
        Self {
            load: Arc::clone(&self.load),
            kind: Kind::Tunnel,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let count = match self.kind {
            Kind::Request => &self.load.requests,
            Kind::Tunnel => &self.load.tunnels,
        };
        count.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_request_has_ended() {
        let load = Arc::<Load>::default();
        let first = load.enter(1, usize::MAX);
        assert!(first.is_ok());
        assert_eq!(load.enter(1, usize::MAX).err(), Some(Shed::Workload));
        drop(first);
        assert!(load.enter(1, usize::MAX).is_ok());
    }

    #[test]
    fn under_pressure_an_app_has_its_share_beside_its_tunnels() {
        let load = Arc::<Load>::default();
        let tunnels: Vec<_> = (0..3)
            .map(|_| load.enter(5, usize::MAX).unwrap().into_tunnel())
            .collect();
        let request = load.enter(5, 1);
        assert!(request.is_ok());
        assert_eq!(load.enter(5, 1).err(), Some(Shed::Overload));
        let _second = load.enter(5, 2).unwrap();
        assert_eq!(load.enter(5, 9).err(), Some(Shed::Workload));
        drop(tunnels);
        assert_eq!(load.enter(5, 2).err(), Some(Shed::Overload));
        drop(request);
        assert!(load.enter(5, 2).is_ok());
    }
}
