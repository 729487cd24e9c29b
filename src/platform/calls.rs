//! Calls that are in flight, so that somebody can wait for their end.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many calls there are.
#[derive(Debug, Default)]
pub(super) struct Calls {
    in_flight: AtomicUsize,
    none: Notify,
}

/// One call; it has ended when this is dropped.
#[derive(Debug)]
pub(super) struct Call<'a>(&'a Calls);

impl Calls {
    pub(super) fn begin(&self) -> Call<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Call(self)
    }

    /// Waits until there is none.
    pub(super) async fn none(&self) {
        loop {
            let none = self.none.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Call<'_> {
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
