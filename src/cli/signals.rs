//! Signals: the first one drains, the second one stops at once; SIGUSR1 reopens the access log.

use std::io;
use std::thread;

use m3o_ingress::server::shutdown::{Stage, Stopper};
use m3o_ingress::telemetry::log::Log;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Hears SIGTERM, SIGINT, SIGQUIT and SIGUSR1 from now on, on a thread that lasts as long as the process.
///
/// # Errors
/// When the system hands out no signals or no thread.
pub(super) fn listen(stopper: Stopper, log: Log) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    drop(entered);
    let reopening = async move {
        while reopen.recv().await.is_some() {
            log.reopen();
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
        .spawn(move || runtime.block_on(futures_util::future::join(hear, reopening)))?;
    Ok(())
}
