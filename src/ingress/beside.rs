//! What goes on beside the workers, and the order in which it ends.

use std::time::Duration;

use tokio::task::JoinSet;

use super::background::Background;
use crate::server::shutdown::{Stage, Stop, Stopper, stop_signal};

/// What goes on beside the workers, on the control thread.
#[derive(Debug)]
pub(super) struct Beside {
    /// What another process takes over at once: the admin address, and orders for certificates.
    pub(super) first: JoinSet<()>,
    pub(super) first_stop: Stop,
    first_stopper: Stopper,
    /// The rest.
    pub(super) side: JoinSet<()>,
    pub(super) side_stop: Stop,
    side_stopper: Stopper,
    pub(super) background: Option<Background>,
}

/// How long what another process has taken over may take to end here.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

impl Beside {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let (first_stopper, first_stop) = stop_signal();
        let (side_stopper, side_stop) = stop_signal();
        Self {
            first: JoinSet::new(),
            first_stop,
            first_stopper,
            side: JoinSet::new(),
            side_stop,
            side_stopper,
            background: None,
        }
    }

    /// Ends what another process takes over at once.
    pub(super) async fn end_first(&mut self) {
        self.first_stopper.advance(Stage::Draining);
        all_of(&mut self.first, FIRST_PATIENCE).await;
        // The other one does it from now on.
        self.first.shutdown().await;
    }

    /// Ends all of it, within `patience`.
    pub(super) async fn end(mut self, patience: Duration) {
        self.side_stopper.advance(Stage::Draining);
        self.first_stopper.advance(Stage::Draining);
        let background = async {
            if let Some(background) = &mut self.background {
                let _late = tokio::time::timeout(patience, background.end()).await;
            }
        };
        tokio::join!(
            all_of(&mut self.side, patience),
            all_of(&mut self.first, patience),
            background
        );
    }
}

async fn all_of(tasks: &mut JoinSet<()>, patience: Duration) {
    let _late = tokio::time::timeout(patience, async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!("what goes on beside the workers ended badly");
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_another_process_takes_over_does_not_go_on_here() {
        let mut beside = Beside::new();
        let holds = Rc::new(());
        let held = Rc::clone(&holds);
        let never = async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        let local = tokio::task::LocalSet::new();
        beside.first.spawn_local_on(never, &local);
        local.run_until(beside.end_first()).await;
        assert_eq!(Rc::strong_count(&holds), 1);
    }
}
