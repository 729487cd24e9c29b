//! Signs of life for systemd, as long as all workers live.

use std::time::Duration;

use crate::server::notify::Notifier;
use crate::server::pulse::{Pulse, Pulses};
use crate::server::shutdown::{Stage, Stop};

/// Gives a sign `every` so often while no worker stands still. Where one does, systemd sees that and
/// starts the service anew. In a drain workers end one by one, so the sign is given anyhow.
pub(super) async fn feed(notifier: Notifier, every: Duration, workers: Vec<Pulse>, stop: Stop) {
    let mut pulses = Pulses::new(workers);
    loop {
        tokio::time::sleep(every).await;
        let still = pulses.still();
        if still == 0 || stop.stage() >= Stage::Draining {
            notifier.alive();
        } else {
            tracing::error!(
                still,
                "{still} workers stand still: the watchdog is not told otherwise"
            );
        }
    }
}
