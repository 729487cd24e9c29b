//! One thread: its own runtime, its own listeners, its own connections.

use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio_util::task::TaskTracker;

use super::connection::{self, ConnectionSettings};
use super::drain::Drain;
use super::permits::{Permits, Refused};
use super::refusal::{self, Form, Refusal};
use super::shutdown::{Stage, Stop};
use crate::id::RequestId;
use crate::wire::timer::Timer;
use crate::wire::{Handler, Peer, Scheme};

/// What a worker is made of.
#[derive(Debug)]
pub struct Worker {
    /// Names the thread.
    pub name: String,
    /// One socket for each address.
    pub listeners: Vec<StdListener>,
    /// What its connections are held to.
    pub settings: ConnectionSettings,
    /// Counts connections, with the other workers.
    pub permits: Arc<Permits>,
    /// How long what is in flight may take after the drain began.
    pub drain: Duration,
}

/// A pause after `accept` failed for want of descriptors or memory: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Worker {
    /// Starts the thread. `build` makes its handler there, so the handler may hold what is not
    /// `Send`; it spawns what outlives a request on the tracker, which the drain waits for.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn<H, B>(self, build: B, stop: Stop) -> io::Result<JoinHandle<io::Result<()>>>
    where
        H: Handler + 'static,
        B: FnOnce(&TaskTracker) -> H + Send + 'static,
    {
        std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())?;
                runtime.block_on(self.serve(build, stop))
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
        let shared = Rc::new(Shared {
            handler: Rc::new(build(&tasks)),
            settings: self.settings,
            permits: self.permits,
            drain: Rc::new(Drain::default()),
            tasks: tasks.clone(),
        });
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.spawn_local(accept(listener, Rc::clone(&shared), stop.clone()));
        }
        accepting.close();
        accepting.wait().await;
        shared.drain.begin();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = tokio::time::sleep(self.drain) => {}
            () = stop.reached(Stage::Stopping) => {}
        }
        Ok(())
    }
}

struct Shared<H> {
    handler: Rc<H>,
    settings: ConnectionSettings,
    permits: Arc<Permits>,
    drain: Rc<Drain>,
    tasks: TaskTracker,
}

/// Accepts until the drain begins, and then whatever is already in the queue: closing a listener
/// resets the connections that wait in it.
async fn accept<H: Handler + 'static>(
    listener: TcpListener,
    shared: Rc<Shared<H>>,
    mut stop: Stop,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.reached(Stage::Draining) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => shared.connect(stream, address),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again in a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asked of the system itself: the runtime may not have heard of the last ones yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, address)) = listener.accept() {
        let connected = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = connected {
            shared.connect(stream, address);
        }
    }
}

impl<H: Handler + 'static> Shared<H> {
    fn connect(self: &Rc<Self>, stream: TcpStream, address: std::net::SocketAddr) {
        let permit = match self.permits.take(address.ip()) {
            Ok(permit) => permit,
            Err(Refused::Full | Refused::PeerFull) => {
                let handler = Rc::clone(&self.handler);
                let peer = Peer::new(address, Scheme::Http, Timer::new());
                self.tasks.spawn_local(async move {
                    let id = RequestId::new();
                    refusal::write(stream, Refusal::Full, Form::Whole, &id).await;
                    handler.refused(&peer, Refusal::Full.status(), id);
                });
                return;
            }
        };
        let peer = Peer::new(address, Scheme::Http, Timer::new());
        let shared = Rc::clone(self);
        let drained = self.drain.join();
        self.tasks.spawn_local(async move {
            let handler = Rc::clone(&shared.handler);
            connection::serve(stream, permit, peer, handler, &shared.settings, drained).await;
        });
    }
}

/// Errors of the connection that was to be accepted, not of accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
