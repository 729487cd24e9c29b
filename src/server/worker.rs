//! One thread: its own runtime, its own listeners, its own connections.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio_util::task::TaskTracker;

use super::connection::ConnectionSettings;
use super::door::{Door, Guests};
use super::drain::Drain;
use super::listener::Listeners;
use super::permits::Permits;
use super::pressure::Pressure;
use super::shutdown::{Stage, Stop};
use crate::telemetry::metrics::Metrics;
use crate::tls::terms::Terms;
use crate::wire::Handler;

/// A socket that connections come in by.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub socket: StdListener,
    /// What its clients have to agree to; `None`: plain HTTP.
    pub tls: Option<Arc<Terms>>,
}

impl Entrance {
    /// One socket of each of these addresses.
    pub fn of_each<'a>(
        bound: &'a mut [Listeners],
        tls: Option<&'a Arc<Terms>>,
    ) -> impl Iterator<Item = Self> + 'a {
        // Moved, not shared: a worker that stops accepting closes its sockets.
        let sockets = bound.iter_mut().filter_map(|bound| bound.sockets.pop());
        sockets.map(move |socket| Self {
            socket,
            tls: tls.map(Arc::clone),
        })
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Worker {
    /// Names the thread.
    pub name: String,
    /// One socket for each address.
    pub entrances: Vec<Entrance>,
    /// Who connects to them.
    pub guests: Guests,
    /// What its connections are held to.
    pub settings: ConnectionSettings,
    /// Counts connections, with the other workers.
    pub permits: Arc<Permits>,
    /// Counts what was turned away, and panics.
    pub metrics: Arc<Metrics>,
    /// How long what is in flight may take after the drain began.
    pub drain: Duration,
}

impl Worker {
    /// Starts the thread. `build` makes its handler there, so the handler may hold what is not
    /// `Send`; it spawns what outlives a request on the tracker, which the drain waits for. `most` is
    /// what it allows a workload in flight when there is no pressure.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn<H, B>(
        self,
        most: usize,
        build: B,
        stop: Stop,
    ) -> io::Result<JoinHandle<io::Result<()>>>
    where
        H: Handler + 'static,
        B: FnOnce(&TaskTracker, &Rc<Pressure>) -> H + Send + 'static,
    {
        std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())?;
                runtime.block_on(async {
                    let pressure = Pressure::new(most, Arc::clone(&self.metrics));
                    let watching = tokio::task::spawn_local(Rc::clone(&pressure).watch());
                    let served = self.serve(|tasks| build(tasks, &pressure), stop).await;
                    watching.abort();
                    served
                })
            })
    }

    /// Serves on the thread that calls, which has a local runtime.
    ///
    /// # Errors
    /// When a listener is not taken by the runtime.
    pub async fn serve<H, B>(self, build: B, mut stop: Stop) -> io::Result<()>
    where
        H: Handler + 'static,
        B: FnOnce(&TaskTracker) -> H,
    {
        let tasks = TaskTracker::new();
        let drain = Rc::new(Drain::default());
        let door = Door::new(
            build(&tasks),
            self.guests,
            self.settings,
            self.permits,
            self.metrics,
            Rc::clone(&drain),
            tasks.clone(),
        );
        let accepting = TaskTracker::new();
        for Entrance { socket, tls } in self.entrances {
            let listener = TcpListener::from_std(socket)?;
            accepting.spawn_local(Rc::clone(&door).keep(listener, tls, stop.clone()));
        }
        accepting.close();
        accepting.wait().await;
        let ended_early = stop.stage() < Stage::Draining;
        drain.begin();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = tokio::time::sleep(self.drain) => {}
            () = stop.reached(Stage::Stopping) => {}
        }
        if ended_early {
            return Err(io::Error::other("a listener ended on its own"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
