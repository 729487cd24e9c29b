//! One thread: its own runtime, its own listeners, its own connections. It goes on while it is told to serve
//! by something else.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::current::Current;
use super::door::{Door, Guests};
use super::drain::Drain;
use super::gate::{Gate, Gates};
use super::listener::Entrance;
use super::permits::Permits;
use super::pressure::Pressure;
use super::pulse::Pulse;
use super::settings::ConnectionSettings;
use super::shutdown::{Stage, Stop};
use crate::telemetry::metrics::Metrics;
use crate::wire::Handler;
use crate::wire::peer::ListenerId;

/// What a worker is made of.
#[derive(Debug)]
pub struct Worker {
    /// Names the thread.
    pub name: String,
    /// Who connects to its listeners.
    pub guests: Guests,
    /// Counts connections, with the other workers.
    pub permits: Arc<Permits>,
    /// Counts what was turned away, and panics.
    pub metrics: Arc<Metrics>,
    /// Beats while the thread gets round to its work.
    pub pulse: Pulse,
}

/// What a worker serves by from now on, all of it together.
#[derive(Debug)]
pub struct Order<P> {
    /// What its handler is made of.
    pub parts: P,
    /// What its connections are held to.
    pub settings: ConnectionSettings,
    /// Every listener that it has from now on. One that it has already is given without a socket; one of
    /// the process before may have several.
    pub listeners: Vec<(Entrance, Vec<StdListener>)>,
    /// What it allows a workload in flight when there is no pressure.
    pub most: usize,
    /// How long what is in flight may take after the drain began.
    pub drain: Duration,
    /// Hears when all of it is so.
    pub done: Option<oneshot::Sender<()>>,
}

/// The orders that a worker has not followed yet.
pub type Orders<P> = mpsc::Receiver<Order<P>>;

/// What a handler is made from beside the parts of its order.
#[derive(Debug)]
pub struct Place<'a, H> {
    /// The handler that it takes the place of, where it is not the first one.
    pub before: Option<&'a H>,
    /// What outlives a request is spawned here: the drain waits for it.
    pub tasks: &'a TaskTracker,
    /// What the worker takes on.
    pub pressure: &'a Rc<Pressure>,
}

impl Worker {
    /// Starts the thread. It follows `first`, and then each of the `orders`. `build` makes its handlers
    /// there, so they may hold what is not `Send`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn<P, H, B>(
        self,
        first: Order<P>,
        orders: Orders<P>,
        build: B,
        stop: Stop,
    ) -> io::Result<JoinHandle<io::Result<()>>>
    where
        P: Send + 'static,
        H: Handler + 'static,
        B: Fn(P, &Place<'_, H>) -> H + Send + 'static,
    {
        std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())?;
                self.metrics.count_tasks_of(runtime.handle().metrics());
                runtime.block_on(async {
                    let pressure = Pressure::new(first.most, Arc::clone(&self.metrics));
                    let watching = Rc::clone(&pressure).watch(self.pulse.clone());
                    let watching = tokio::task::spawn_local(watching);
                    let served = self.serve_under(pressure, first, orders, build, stop).await;
                    watching.abort();
                    served
                })
            })
    }

    /// Serves on the thread that calls, which has a local runtime, and looks at no pressure.
    ///
    /// # Errors
    /// When a listener is not taken by the runtime.
    pub async fn serve<P, H, B>(
        self,
        first: Order<P>,
        orders: Orders<P>,
        build: B,
        stop: Stop,
    ) -> io::Result<()>
    where
        H: Handler + 'static,
        B: Fn(P, &Place<'_, H>) -> H,
    {
        let pressure = Pressure::new(first.most, Arc::clone(&self.metrics));
        self.serve_under(pressure, first, orders, build, stop).await
    }

    async fn serve_under<P, H, B>(
        self,
        pressure: Rc<Pressure>,
        first: Order<P>,
        mut orders: Orders<P>,
        build: B,
        mut stop: Stop,
    ) -> io::Result<()>
    where
        H: Handler + 'static,
        B: Fn(P, &Place<'_, H>) -> H,
    {
        let mut serving = Serving::begin(self, pressure, first, build, stop.clone()).await?;
        let mut stages = stop.clone();
        let ended_early = loop {
            tokio::select! {
                biased;
                () = stop.reached(Stage::Draining) => break false,
                // Nobody told it to, or the word that did is on its way here too.
                Some(_) = serving.gates.ended() => break stop.stage() < Stage::Draining,
                // The drain itself begins when its listeners have ended.
                stage = stages.changed() => serving.connections.go_to(stage.min(Stage::Yielding)),
                Some(order) = orders.recv() => serving.follow(order).await?,
            }
        };
        // Sockets that are still on their way here are closed.
        drop(orders);
        serving.gates.close_others(&[]).await;
        serving.finish(stop).await;
        if ended_early {
            return Err(io::Error::other("a listener ended on its own"));
        }
        Ok(())
    }
}

/// A worker that serves.
struct Serving<H, B> {
    door: Rc<Door<H>>,
    gates: Gates,
    build: B,
    pressure: Rc<Pressure>,
    tasks: TaskTracker,
    connections: Rc<Drain>,
    drain: Duration,
    stop: Stop,
}

impl<H: Handler + 'static, B> Serving<H, B> {
    async fn begin<P>(
        worker: Worker,
        pressure: Rc<Pressure>,
        first: Order<P>,
        build: B,
        stop: Stop,
    ) -> io::Result<Self>
    where
        B: Fn(P, &Place<'_, H>) -> H,
    {
        let tasks = TaskTracker::new();
        let connections = Rc::new(Drain::default());
        let handler = build(
            first.parts,
            &Place {
                before: None,
                tasks: &tasks,
                pressure: &pressure,
            },
        );
        let door = Door::new(
            Current::new(handler, first.settings),
            worker.guests,
            worker.permits,
            worker.metrics,
            Rc::clone(&connections),
            tasks.clone(),
        );
        let mut serving = Self {
            door,
            gates: Gates::default(),
            build,
            pressure,
            tasks,
            connections,
            drain: first.drain,
            stop,
        };
        serving.listen(first.listeners).await?;
        Ok(serving)
    }

    /// Does as it is told: whoever connects, or asks, after its `done` meets all of it.
    async fn follow<P>(&mut self, order: Order<P>) -> io::Result<()>
    where
        B: Fn(P, &Place<'_, H>) -> H,
    {
        let before = self.door.current.now();
        let handler = (self.build)(
            order.parts,
            &Place {
                before: Some(&before.handler),
                tasks: &self.tasks,
                pressure: &self.pressure,
            },
        );
        drop(before);
        self.door.current.replace(handler, order.settings);
        self.pressure.set_most(order.most);
        self.drain = order.drain;
        self.listen(order.listeners).await?;
        if let Some(done) = order.done {
            // Whoever gave the order may have given up.
            let _nobody_waits = done.send(());
        }
        Ok(())
    }

    /// Opens what is new, turns what stays into what it is to be, and closes the others.
    async fn listen(&mut self, wanted: Vec<(Entrance, Vec<StdListener>)>) -> io::Result<()> {
        let ids: Vec<ListenerId> = wanted.iter().map(|(entrance, _)| entrance.id).collect();
        for (entrance, sockets) in wanted {
            if sockets.is_empty() {
                self.gates.turn(&entrance);
            }
            for socket in sockets {
                let (listener, gate) =
                    (TcpListener::from_std(socket)?, Gate::new(entrance.clone()));
                let door = Rc::clone(&self.door);
                let keeping = door.keep(listener, Rc::clone(&gate), self.stop.clone());
                self.gates.open(gate, keeping);
            }
        }
        self.gates.close_others(&ids).await;
        Ok(())
    }

    /// Waits for what is in flight, as long as it may take.
    async fn finish(self, mut stop: Stop) {
        self.connections.begin();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = tokio::time::sleep(self.drain) => {}
            () = stop.reached(Stage::Stopping) => {}
        }
    }
}

#[cfg(test)]
mod tests;
