//! Signals: the first one that ends drains, the second one stops at once. SIGHUP reloads, SIGUSR1 reopens the
//! access log, SIGUSR2 starts a new process in place of this one.

use std::io;
use std::thread;

use m3o_ingress::ingress::{Reloader, Upgrader};
use m3o_ingress::server::shutdown::{Stage, Stopper};
use m3o_ingress::telemetry::log::Log;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end nothing. One that comes now is heard as soon as somebody [listens](Self::listen),
/// and does not end a process that still starts.
pub(super) struct Signals {
    runtime: Runtime,
    hangup: Signal,
    reopen: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Keeps them from now on.
    ///
    /// # Errors
    /// When the system hands out none.
    pub(super) fn keep() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let hangup = signal(SignalKind::hangup())?;
        let reopen = signal(SignalKind::user_defined1())?;
        let upgrade = signal(SignalKind::user_defined2())?;
        drop(entered);
        Ok(Self {
            runtime,
            hangup,
            reopen,
            upgrade,
        })
    }

    /// Hears all signals from now on, on a thread that lasts as long as the process.
    ///
    /// # Errors
    /// When the system hands out no more of them, or no thread.
    pub(super) fn listen(
        self,
        stopper: Stopper,
        reloader: Reloader,
        upgrader: Upgrader,
        log: Log,
    ) -> io::Result<()> {
        let Self {
            runtime,
            mut hangup,
            mut reopen,
            mut upgrade,
        } = self;
        let entered = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
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
}
