//! Signs of life for systemd, as long as all workers live.

use std::time::Duration;

use crate::server::notify::Notifier;
use crate::server::pulse::{Pulse, Pulses};
use crate::server::shutdown::{Stage, Stop};

/// Gives a sign at once, and `every` so often while no worker stands still. Where one does, systemd sees that and
/// starts the service anew. Once `workers` drain they end one by one, and the sign is given anyhow, until
/// `end`.
pub(super) async fn feed(
    notifier: Notifier,
    every: Duration,
    pulses: Vec<Pulse>,
    workers: Stop,
    mut end: Stop,
) {
    let mut pulses = Pulses::new(pulses);
    // Whoever spoke for the service before may have given its last sign some time ago.
    notifier.alive();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = end.reached(Stage::Draining) => return,
        }
        let still = pulses.still();
        if still == 0 || workers.stage() >= Stage::Draining {
            notifier.alive();
        } else {
            tracing::error!(
                still,
                "{still} workers stand still: the watchdog of systemd is not told that all is well"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::server::shutdown::stop_signal;

    const EVERY: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_still_is_left_to_the_watchdog() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let path = path.to_str().unwrap();
        let variable = |name| (name == "NOTIFY_SOCKET").then_some(path);
        let notifier = Notifier::read(variable, 1).unwrap();
        let (stopper, workers) = stop_signal();
        let (ender, end) = stop_signal();
        let (one, two) = (Pulse::default(), Pulse::default());
        let pulses = vec![one.clone(), two.clone()];
        let feeding = tokio::spawn(feed(notifier, EVERY, pulses, workers, end));
        let heard = || {
            let mut buffer = [0; 64];
            manager
                .recv(&mut buffer)
                .is_ok_and(|length| &buffer[..length] == b"WATCHDOG=1")
        };
        let fed = async || {
            tokio::task::yield_now().await;
            tokio::time::advance(EVERY).await;
            tokio::task::yield_now().await;
            heard()
        };
        tokio::task::yield_now().await;
        assert!(heard(), "it begins");
        one.beat();
        two.beat();
        assert!(fed().await);
        one.beat();
        assert!(!fed().await, "the other one stands still");
        one.beat();
        two.beat();
        assert!(fed().await, "it goes on");
        stopper.advance(Stage::Draining);
        assert!(fed().await, "they end");
        ender.advance(Stage::Draining);
        feeding.await.unwrap();
    }
}
