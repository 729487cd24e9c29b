//! Calls that are in flight, so that somebody can wait for their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many calls there are.
#[derive(Debug, Default)]
pub(super) struct Calls(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    in_flight: AtomicUsize,
    none: Notify,
}

/// One call; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Call(Arc<Count>);

impl Calls {
    pub(super) fn begin(&self) -> Call {
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        Call(Arc::clone(&self.0))
    }

    /// Waits until there is none.
    pub(super) async fn none(&self) {
        loop {
            let none = self.0.none.notified();
            if self.0.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn there_is_none_when_the_last_one_has_ended() {
        let calls = Calls::default();
        calls.none().await;
        let (one, two) = (calls.begin(), calls.begin());
        let mut none = std::pin::pin!(calls.none());
        assert!(none.as_mut().now_or_never().is_none());
        drop(one);
        assert!(none.as_mut().now_or_never().is_none());
        drop(two);
        none.await;
    }
}
