//! The listeners of a worker: what each is to new connections, and the word that closes it.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::drain::Drain;
use super::listener::Entrance;
use crate::wire::peer::ListenerId;

/// A listener that is served. It may become something else to its next connections, and it may close.
#[derive(Debug)]
pub(super) struct Gate {
    entrance: RefCell<Rc<Entrance>>,
    /// Tells its connections to finish once it has closed.
    pub(super) drain: Rc<Drain>,
    close: Notify,
}

impl Gate {
    pub(super) fn new(entrance: Entrance) -> Rc<Self> {
        Rc::new(Self {
            entrance: RefCell::new(Rc::new(entrance)),
            drain: Rc::default(),
            close: Notify::new(),
        })
    }

    /// What it is to a connection that comes in now.
    pub(super) fn entrance(&self) -> Rc<Entrance> {
        Rc::clone(&self.entrance.borrow())
    }

    /// Turns it into something else for all connections to come.
    pub(super) fn turn_into(&self, entrance: Entrance) {
        self.entrance.replace(Rc::new(entrance));
    }

    /// Has it accept what is in its queue, and close.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits for that word.
    pub(super) async fn closing(&self) {
        self.close.notified().await;
    }
}

/// All of them, each served by a task of its own. A listener with several sockets has one for each.
#[derive(Debug, Default)]
pub(super) struct Gates {
    open: Vec<Rc<Gate>>,
    keeping: JoinSet<ListenerId>,
}

impl Gates {
    /// One more, which `keeping` serves until it is closed.
    pub(super) fn open(&mut self, gate: Rc<Gate>, keeping: impl Future<Output = ()> + 'static) {
        let id = gate.entrance().id;
        self.open.push(gate);
        self.keeping.spawn_local(async move {
            keeping.await;
            id
        });
    }

    /// What the listener of this entrance is from now on.
    pub(super) fn turn(&self, entrance: &Entrance) {
        for gate in &self.open {
            if gate.entrance().id == entrance.id {
                gate.turn_into(entrance.clone());
            }
        }
    }

    /// Closes all but `these`, and waits until they are. Their connections finish what they do.
    pub(super) async fn close_others(&mut self, these: &[ListenerId]) {
        let all = std::mem::take(&mut self.open).into_iter();
        let (stay, close): (Vec<_>, Vec<_>) =
            all.partition(|gate| these.contains(&gate.entrance().id));
        self.open = stay;
        let mut left: Vec<ListenerId> = close.iter().map(|gate| gate.entrance().id).collect();
        for gate in &close {
            gate.close();
        }
        while !left.is_empty() {
            match self.keeping.join_next().await {
                Some(Ok(ended)) => {
                    if let Some(place) = left.iter().position(|id| *id == ended) {
                        left.swap_remove(place);
                    }
                }
                Some(Err(_)) => {}
                None => break,
            }
        }
        for gate in close {
            gate.drain.begin();
        }
    }

    /// One that has ended without having been told to; `None` where there is none to end.
    pub(super) async fn ended(&mut self) -> Option<()> {
        self.keeping.join_next().await.map(drop)
    }
}
