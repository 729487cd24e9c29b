//! How a process is replaced by a new one of the same service: started, given all sockets, let have the
//! store, and heard. Whatever fails, this one goes on.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::api::Api;
use super::running::Running;
use crate::server::passing::{AsyncChannel, Channel, Word, unexpected};
use crate::server::shutdown::{Stage, Stop, Stopper};
use crate::units::duration;

/// Tells the new process that its standard input is a [`Channel`] of the process with this number.
pub const VARIABLE: &str = "M3O_UPGRADE_FROM";

/// Names the file that the process before has open as its store, where it has one.
pub const STORE_VARIABLE: &str = "M3O_UPGRADE_STORE";

/// What systemd says to the process that it started, and to no other.
const OF_THIS_PROCESS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// So long a client may take for its next request on a connection that has served one, or for the first
/// on a new one. Nobody is cut off who sends one request after the other.
const LAST_CALL: Duration = Duration::from_millis(500);

/// So long requests may be on their way that were sent before their client heard of the end.
const SETTLE: Duration = Duration::from_millis(100);

/// So long calls of the embedded platform may take to end.
const CALLS: Duration = Duration::from_secs(2);

/// So long a process that was told to end at once may take.
const KILL: Duration = Duration::from_secs(5);

/// How the service is when no process has followed.
const GOES_ON: &str = "serving; the last upgrade has failed";

/// What is started in place of this process.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its file, which may be another one by then.
    pub path: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

/// Asks a running ingress to be replaced. A clone asks the same.
#[derive(Debug, Clone)]
pub struct Upgrader {
    requests: mpsc::Sender<()>,
    is_under_way: Arc<AtomicBool>,
}

/// What an ingress is asked for.
#[derive(Debug)]
pub struct Upgrades {
    program: Program,
    requests: mpsc::Receiver<()>,
    is_under_way: Arc<AtomicBool>,
}

/// A way to ask for `program`, and to hear of it.
#[must_use]
pub fn upgrades(program: Program) -> (Upgrader, Upgrades) {
    let (sender, receiver) = mpsc::channel(1);
    let is_under_way = Arc::<AtomicBool>::default();
    let upgrader = Upgrader {
        requests: sender,
        is_under_way: Arc::clone(&is_under_way),
    };
    let upgrades = Upgrades {
        program,
        requests: receiver,
        is_under_way,
    };
    (upgrader, upgrades)
}

impl Upgrader {
    /// Asks, unless the last time is not over yet.
    pub fn begin(&self) {
        if self.is_under_way.swap(true, Ordering::AcqRel) || self.requests.try_send(()).is_err() {
            tracing::warn!(
                "an upgrade is under way, or this process ends already: it is asked for in vain"
            );
        }
    }
}

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{} cannot be started: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the new process says: {0}")]
    Said(String),
    #[error("the new process ended before it was ready: {0}")]
    Ended(ExitStatus),
    #[error("it is not ready after {limit}, timeouts.upgrade", limit = duration::format(*.0))]
    Late(Duration),
    #[error("the two processes do not understand each other: {0}")]
    Talk(#[from] io::Error),
    #[error("this process was told to stop")]
    Stopped,
}

/// The process that has taken over.
pub(super) struct Successor {
    pub(super) pid: u32,
    /// Where it accepts.
    taken: Vec<SocketAddr>,
    /// It waits for the end of this with what only one is to do.
    channel: AsyncChannel,
}

/// What is handed over, and who has to make room.
pub(super) struct Succession<'a> {
    pub(super) running: &'a mut Running,
    pub(super) workers: &'a Stopper,
}

impl Succession<'_> {
    /// Has another process take over, unless `stop` comes first. Then nothing is accepted here but what waits
    /// where it does not. Where it fails, this one goes on.
    pub(super) async fn replace(
        &mut self,
        upgrades: &Upgrades,
        stop: &mut Stop,
    ) -> Option<Successor> {
        match self.attempt(&upgrades.program, stop).await {
            Ok(successor) => {
                self.leave(&successor).await;
                return Some(successor);
            }
            Err(error) => tracing::error!(
                %error,
                "the upgrade has failed, and this process goes on: {error}; repair that and send SIGUSR2 again"
            ),
        }
        upgrades.is_under_way.store(false, Ordering::Release);
        None
    }

    async fn attempt(&mut self, program: &Program, stop: &mut Stop) -> Result<Successor, Failed> {
        let (ours, theirs) = Channel::pair()?;
        let channel = AsyncChannel::new(ours)?;
        let mut child = start(program, Stdio::from(theirs), self.store())?;
        let pid = child.id().unwrap_or_default();
        let path = program.path.display();
        tracing::info!(pid, program = %path, "upgrading: the new process {pid} was started");
        self.running.notifier.status("upgrading");
        let mut lets_go = false;
        let limit = self.running.config().timeouts.upgrade;
        let talked = tokio::select! {
            // Who is ready at the last moment is ready.
            biased;
            talked = self.talk(&channel, &mut child, &mut lets_go) => talked,
            () = stop.reached(Stage::Draining) => Err(Failed::Stopped),
            () = tokio::time::sleep(limit) => Err(Failed::Late(limit)),
        };
        match talked {
            Ok(taken) => Ok(Successor {
                pid,
                taken,
                channel,
            }),
            Err(failed) => {
                // It may have said that it speaks for the service, which must not end with it.
                self.running.notifier.ready(GOES_ON);
                // The store is free, and the child is no zombie, when it has ended.
                match timeout(KILL, child.kill()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(pid, %error, "the new process cannot be ended: {error}");
                    }
                    Err(_) => tracing::warn!(pid, "the new process {pid} does not end"),
                }
                self.go_on(lets_go).await;
                Err(failed)
            }
        }
    }

    /// What the embedded platform has open.
    fn store(&self) -> Option<&Path> {
        let Api::Local(_) = &self.running.parts.api else {
            return None;
        };
        let platform = self.running.config().platform.as_ref();
        platform.map(|platform| &*platform.store)
    }

    /// Hands over step by step; the addresses that are taken.
    async fn talk(
        &mut self,
        channel: &AsyncChannel,
        child: &mut Child,
        lets_go: &mut bool,
    ) -> Result<Vec<SocketAddr>, Failed> {
        // Whoever ends early may have said why.
        let passed = channel.pass(&self.running.estate).await;
        loop {
            match channel.hear().await {
                Ok(Some(Word::LetGo)) => {
                    *lets_go = true;
                    self.let_go().await;
                    channel.say(&Word::Yours).await?;
                }
                Ok(Some(Word::Ready { taken })) => return Ok(taken),
                Ok(Some(Word::Failed { why })) => return Err(Failed::Said(why)),
                Ok(Some(other)) => return Err(Failed::Talk(unexpected(&other))),
                Ok(None) => return Err(Failed::Ended(child.wait().await?)),
                // Its end was closed with words of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(Failed::Ended(child.wait().await?));
                }
                Err(error) => return Err(Failed::Talk(passed.err().unwrap_or(error))),
            }
        }
    }

    /// Lets go of what only one process may have. From here on clients wait in the queues until the
    /// new one accepts them; none is cut off.
    async fn let_go(&mut self) {
        let Running { parts, beside, .. } = &mut *self.running;
        let Api::Local(platform) = &parts.api else {
            return;
        };
        // A mail that is under way takes as long as it takes; meanwhile all is served here.
        if let Some(background) = &mut beside.background {
            background.end().await;
        }
        self.workers.advance(Stage::LastCall);
        tokio::time::sleep(LAST_CALL).await;
        self.workers.advance(Stage::Yielding);
        tokio::time::sleep(SETTLE).await;
        platform.let_go(CALLS).await;
    }

    /// As if nothing had happened.
    async fn go_on(&mut self, lets_go: bool) {
        let Running {
            parts,
            beside,
            notifier,
            ..
        } = &mut *self.running;
        if lets_go && let Api::Local(platform) = &parts.api {
            let (platform, (done, taken)) = (Arc::clone(platform), oneshot::channel());
            beside.side.spawn_local(async move {
                platform.take_back().await;
                let _nobody_waits = done.send(());
            });
            // Opening a file that was not closed may take long. All else is served meanwhile.
            if timeout(CALLS, taken).await.is_err() {
                tracing::warn!("the store is not open again yet: calls of the platform fail");
            }
            self.workers.resume();
            if let Some(background) = &mut beside.background {
                background.start();
            }
        }
        notifier.ready(GOES_ON);
    }

    /// Leaves the sockets to the one that has taken over, and the service.
    async fn leave(&mut self, successor: &Successor) {
        let Running {
            parts,
            estate,
            notifier,
            ..
        } = &mut *self.running;
        let Successor { pid, taken, .. } = successor;
        tracing::info!(
            pid,
            "upgraded: the new process {pid} serves, and this one drains"
        );
        notifier.hand_over(*pid);
        if let Api::Remote(_) = parts.api {
            self.workers.advance(Stage::LastCall);
            tokio::time::sleep(LAST_CALL).await;
        }
        estate.leave(taken);
        self.workers.advance(Stage::Draining);
    }
}

impl Successor {
    /// Nothing is done here any more that only one is to do.
    pub(super) fn go(self) {
        drop(self.channel);
    }
}

/// Waits until an upgrade is asked for; for ever, where nobody can.
pub(super) async fn asked(upgrades: &mut Option<Upgrades>) {
    let next = match upgrades {
        Some(upgrades) => upgrades.requests.recv().await,
        None => None,
    };
    if next.is_none() {
        std::future::pending::<()>().await;
    }
}

fn start(program: &Program, input: Stdio, store: Option<&Path>) -> Result<Child, Failed> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env(VARIABLE, std::process::id().to_string())
        .stdin(input);
    match store {
        Some(store) => command.env(STORE_VARIABLE, store),
        None => command.env_remove(STORE_VARIABLE),
    };
    for variable in OF_THIS_PROCESS {
        command.env_remove(variable);
    }
    command.spawn().map_err(|source| Failed::Start {
        program: program.path.clone(),
        source,
    })
}
