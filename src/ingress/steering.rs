//! What the control thread does while the workers serve: it reloads, has itself replaced, and begins the
//! drain. One at a time, because each changes what the others go by.

use super::ending::Ending;
use super::reload::Reloads;
use super::running::Running;
use super::succession::{Succession, Successor, Upgrades, asked};
use crate::server::shutdown::{Stage, Stopper};

/// Goes on until the workers were told to drain: because the `ending` says so, or because a successor has
/// taken over.
pub(super) async fn steer(
    running: &mut Running,
    reloads: &mut Reloads,
    mut upgrades: Option<Upgrades>,
    workers: &Stopper,
    ending: &mut Ending,
) -> Option<Successor> {
    let stage = loop {
        let is_upgrade = tokio::select! {
            biased;
            () = ending.stop.reached(Stage::Draining) => {
                // None is begun any more. A reload may still be, until the drain.
                drop(upgrades);
                tokio::select! {
                    stage = ending.begins() => break stage,
                    never = reloads.serve(running) => match never {},
                }
            }
            () = asked(&mut upgrades) => true,
            () = reloads.asked(running.config()) => false,
        };
        if !is_upgrade {
            tokio::select! {
                stage = ending.begins() => break stage,
                () = reloads.answer(running) => {}
            }
        } else if let Some(upgrades) = &upgrades {
            let mut succession = Succession { running, workers };
            // Boxed: it is large, and seldom.
            if let Some(successor) = Box::pin(succession.replace(upgrades, &mut ending.stop)).await
            {
                return Some(successor);
            }
        }
    };
    // They keep the queues open, so they go before the listeners do.
    running.estate.leave(&[]);
    workers.advance(stage);
    None
}
