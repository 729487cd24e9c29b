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
    keeping: JoinSet<()>,
}

impl Gates {
    /// One more, which `keeping` serves until it is closed.
    pub(super) fn open(&mut self, gate: Rc<Gate>, keeping: impl Future<Output = ()> + 'static) {
        self.open.push(gate);
        self.keeping.spawn_local(keeping);
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
        for gate in &close {
            gate.close();
        }
        // However each ends: by a panic too.
        while self.keeping.len() > self.open.len() {
            if self.keeping.join_next().await.is_none() {
                break;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_panics_while_it_closes_is_closed() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let mut gates = Gates::default();
                let entrance = |id| Entrance {
                    id: ListenerId(id),
                    ..Entrance::default()
                };
                for id in 0..2 {
                    let gate = Gate::new(entrance(id));
                    let kept = Rc::clone(&gate);
                    gates.open(gate, async move {
                        kept.closing().await;
                        panic!("on purpose");
                    });
                }
                gates.close_others(&[ListenerId(1)]).await;
                assert_eq!(gates.open.len(), 1);
                gates.close_others(&[]).await;
                assert!(gates.ended().await.is_none());
            })
            .await;
    }
}
