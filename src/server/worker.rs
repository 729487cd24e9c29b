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
use super::listener::Entrance;
use super::permits::Permits;
use super::pressure::Pressure;
use super::pulse::Pulse;
use super::shutdown::{Stage, Stop};
use crate::telemetry::metrics::Metrics;
use crate::wire::Handler;

/// What a worker is made of.
#[derive(Debug)]
pub struct Worker {
    /// Names the thread.
    pub name: String,
    /// One socket for each address, and what it is to its connections.
    pub listeners: Vec<(Entrance, StdListener)>,
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
    /// Beats while the thread gets round to its work.
    pub pulse: Pulse,
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
                self.metrics.count_tasks_of(runtime.handle().metrics());
                runtime.block_on(async {
                    let pressure = Pressure::new(most, Arc::clone(&self.metrics));
                    let watching = Rc::clone(&pressure).watch(self.pulse.clone());
                    let watching = tokio::task::spawn_local(watching);
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
        for (entrance, listener) in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.spawn_local(Rc::clone(&door).keep(listener, entrance, stop.clone()));
        }
        accepting.close();
        tokio::select! {
            () = accepting.wait() => {}
            () = make_room(&drain, stop.clone()) => {}
        }
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

/// Passes on what may be taken back. Never ends.
async fn make_room(drain: &Drain, mut stop: Stop) {
    loop {
        match stop.changed().await {
            Stage::Running => drain.end(),
            Stage::LastCall => drain.last_call(),
            Stage::Yielding => drain.begin(),
            // Its listeners hear of these first.
            Stage::Draining | Stage::Stopping => {}
        }
    }
}

#[cfg(test)]
mod tests;
