//! One signal for every thread: go on, make room for a new process, drain, or stop at once.

use tokio::sync::watch;

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serve.
    Running,
    /// Accept no more, and say on each answer that it is the last one on its connection: another process
    /// is about to take over. It may still fail to, and then this is taken back.
    LastCall,
    /// As before, and connections without a request end. That may be taken back too.
    Yielding,
    /// Accept no more, finish what is in flight.
    Draining,
    /// End now.
    Stopping,
}

/// Says when to stop. Dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<Stage>);

/// Hears when to stop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Stage>);

/// A connected pair.
#[must_use]
pub fn stop_signal() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Moves on to `stage`; never back.
    pub fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }

    /// Goes on after a [`Stage::LastCall`] or [`Stage::Yielding`]. A drain is never taken back.
    pub fn resume(&self) {
        self.0.send_if_modified(|now| {
            let rests = (Stage::LastCall..Stage::Draining).contains(now);
            if rests {
                *now = Stage::Running;
            }
            rests
        });
    }
}

impl Stop {
    /// The stage right now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until `stage` or a later one is reached. Where every [`Stopper`] is gone, for ever.
    pub async fn reached(&mut self, stage: Stage) {
        if self.0.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits while nothing is to be accepted and that may be taken back: whether it was.
    pub async fn is_resumed(&mut self) -> bool {
        let rest = Stage::LastCall..Stage::Draining;
        let ended = self.0.wait_for(|now| !rest.contains(now)).await;
        let stage = ended.map(|now| *now);
        match stage {
            Ok(now) => now == Stage::Running,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the next stage. Where every [`Stopper`] is gone, for ever.
    pub async fn changed(&mut self) -> Stage {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.0.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_makes_room_may_be_taken_back_and_a_drain_never_is() {
        let (stopper, mut stop) = stop_signal();
        for stage in [Stage::LastCall, Stage::Yielding] {
            stopper.advance(stage);
            stop.reached(Stage::LastCall).await;
            stopper.resume();
            assert!(stop.is_resumed().await);
            assert_eq!(stop.stage(), Stage::Running);
        }
        stopper.advance(Stage::Draining);
        stopper.resume();
        assert_eq!(stop.stage(), Stage::Draining);
        assert!(!stop.is_resumed().await);
    }
}
