//! How many requests are in flight to one thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests in flight to one workload.
#[derive(Debug, Default)]
pub struct Load(AtomicUsize);

/// One request in flight; counted down when dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl Load {
    /// Counts one more, unless there are `limit` already.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<InFlight> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= limit {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(InFlight(Arc::clone(self)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_request_has_ended() {
        let load = Arc::<Load>::default();
        let first = load.enter(1);
        assert!(first.is_some());
        assert!(load.enter(1).is_none());
        drop(first);
        assert!(load.enter(1).is_some());
    }
}
