//! Signals: the first one that ends drains, the second one stops at once. SIGHUP reloads, SIGUSR1 reopens the
//! access log, SIGUSR2 starts a new process in place of this one.

use std::io;
use std::thread;

use m3o_ingress::ingress::{Reloader, Upgrader};
use m3o_ingress::server::shutdown::{Stage, Stopper};
use m3o_ingress::telemetry::log::Log;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Hears all of them from now on, on a thread that lasts as long as the process.
///
/// # Errors
/// When the system hands out no signals or no thread.
pub(super) fn listen(
    stopper: Stopper,
    reloader: Reloader,
    upgrader: Upgrader,
    log: Log,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    drop(entered);
    let end = async move {
        for stage in [Stage::Draining, Stage::Stopping] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
            }
            stopper.advance(stage);
        }
    };
    let reload = async move {
        while hangup.recv().await.is_some() {
            reloader.nudge();
        }
    };
    let reopening = async move {
        while reopen.recv().await.is_some() {
            log.reopen();
        }
    };
    let upgrading = async move {
        while upgrade.recv().await.is_some() {
            upgrader.begin();
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async { tokio::join!(end, reload, reopening, upgrading) })
        })?;
    Ok(())
}
