//! Signals: the first one drains, the second one stops at once; SIGUSR2 starts a new process in place of
//! this one.

use std::io;
use std::thread;

use m3o_ingress::ingress::Upgrader;
use m3o_ingress::server::shutdown::{Stage, Stopper};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Hears SIGTERM, SIGINT, SIGQUIT and SIGUSR2 from now on, on a thread that lasts as long as the process.
///
/// # Errors
/// When the system hands out no signals or no thread.
pub(super) fn listen(stopper: Stopper, upgrader: Upgrader) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    drop(entered);
    let hear_upgrades = async move {
        while upgrade.recv().await.is_some() {
            upgrader.begin();
        }
    };
    let hear = async move {
        for stage in [Stage::Draining, Stage::Stopping] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
            }
            stopper.advance(stage);
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = hear => {}
                    () = hear_upgrades => {}
                }
            });
        })?;
    Ok(())
}
