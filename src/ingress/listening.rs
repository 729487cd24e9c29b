//! The listeners that an ingress has, by their addresses: what stays, opens and closes when others are
//! wanted.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use ipnet::IpNet;

use crate::server;
pub(super) use crate::server::inherited::Kind;
use crate::server::inherited::{Estate, Left};
use crate::server::listener::{self, Announcers, Entrance, Listeners};
use crate::tls::terms::Terms;
use crate::wire::peer::ListenerId;

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) kind: Kind,
    /// As the configuration names it.
    pub(super) named: SocketAddr,
    /// The one really bound, also where that is port 0.
    pub(super) bound: SocketAddr,
    /// Whether another process accepts there from now on.
    left: Left,
}

/// All listeners of one kind of worker, in the order of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub(super) all: Vec<Listener>,
    /// Sockets for each address.
    workers: usize,
    /// The number of the next one.
    next: u32,
}

/// The sockets of new listeners, at least one a worker each.
pub(super) type Sockets = HashMap<ListenerId, Vec<TcpListener>>;

/// What would be there instead. Nothing of the old is touched; dropped, it closes what is new.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) listening: Listening,
    pub(super) sockets: Sockets,
    /// Handles of them.
    pub(super) estate: Estate,
    pub(super) opened: Vec<SocketAddr>,
    pub(super) closed: Vec<SocketAddr>,
}

/// The addresses that `config` names, in the order in which they are counted.
pub(super) fn wanted(config: &server::Config) -> Vec<(Kind, SocketAddr)> {
    let of = |kind: Kind| move |address: &SocketAddr| (kind, *address);
    let http = config.http.iter().map(of(Kind::Http));
    http.chain(config.https.iter().map(of(Kind::Https)))
        .collect()
}

/// The address of the operator.
pub(super) fn wanted_by_operator(config: &server::Config) -> Vec<(Kind, SocketAddr)> {
    let admin = config.admin.map(|address| (Kind::Admin, address));
    Vec::from_iter(admin)
}

impl Listening {
    /// What is bound at the start, in the order of `wanted`.
    pub(super) fn begin(
        wanted: Vec<(Kind, SocketAddr)>,
        bound: Vec<Listeners>,
        workers: usize,
    ) -> (Self, Sockets) {
        let mut sockets = Sockets::new();
        let numbered = (0..).zip(wanted.into_iter().zip(bound));
        let all: Vec<Listener> = numbered
            .map(|(number, ((kind, named), listeners))| {
                let id = ListenerId(number);
                let bound = listeners.address;
                let left = listeners.entrance.left;
                sockets.insert(id, listeners.sockets);
                Listener {
                    id,
                    kind,
                    named,
                    bound,
                    left,
                }
            })
            .collect();
        let next = (0..).nth(all.len()).unwrap_or(u32::MAX);
        (Self { all, workers, next }, sockets)
    }

    /// Binds what is new among `wanted`.
    ///
    /// # Errors
    /// For every address that cannot be listened on, with a key.
    pub(super) fn plan(&self, wanted: &[(Kind, SocketAddr)]) -> Result<Plan, Vec<String>> {
        let mut left = self.all.clone();
        let mut plan = Plan {
            listening: Self {
                all: Vec::new(),
                ..self.clone()
            },
            sockets: Sockets::new(),
            estate: Estate::default(),
            opened: Vec::new(),
            closed: Vec::new(),
        };
        let mut taken: Vec<Option<Listener>> = Vec::new();
        for (kind, named) in wanted {
            let same = |known: &Listener| known.named == *named && known.kind == *kind;
            let found = left.iter().position(same);
            taken.push(found.map(|place| left.remove(place)));
        }
        // An address that changes what is spoken there keeps its sockets; port 0 is no address.
        for ((kind, named), taken) in wanted.iter().zip(&mut taken) {
            let place = left.iter().position(|known| known.named == *named);
            if let (None, Some(place), true) = (&taken, place, named.port() != 0) {
                let known = left.remove(place);
                *taken = Some(Listener {
                    kind: *kind,
                    ..known
                });
            }
        }
        let mut problems = Vec::new();
        for ((kind, named), taken) in wanted.iter().zip(taken) {
            match taken.map_or_else(|| plan.open(*kind, *named), Ok) {
                Ok(listener) => plan.listening.all.push(listener),
                Err(error) => problems.push(explained(*kind, &error, *named, &left)),
            }
        }
        plan.closed = left.iter().map(|listener| listener.bound).collect();
        match problems.is_empty() {
            true => Ok(plan),
            false => Err(problems),
        }
    }

    /// What the `config` makes of each of them.
    pub(super) fn entrances(
        &self,
        config: &server::Config,
        trusted: &[IpNet],
        terms: Option<&Arc<Terms>>,
    ) -> Vec<Entrance> {
        let announcers = Announcers(trusted.into());
        let entrance = |listener: &Listener| {
            let is_announced = config.proxy_protocol.contains(&listener.named);
            Entrance {
                id: listener.id,
                announcers: is_announced.then(|| announcers.clone()),
                tls: terms.filter(|_| listener.kind == Kind::Https).cloned(),
                left: listener.left.clone(),
            }
        };
        self.all.iter().map(entrance).collect()
    }

    /// Each as one of plain HTTP from whoever connects.
    pub(super) fn plain(&self) -> Vec<Entrance> {
        let entrance = |listener: &Listener| Entrance {
            id: listener.id,
            left: listener.left.clone(),
            ..Entrance::default()
        };
        self.all.iter().map(entrance).collect()
    }

    /// The addresses really bound where `kind` is spoken.
    pub(super) fn bound(&self, kind: Kind) -> impl Iterator<Item = SocketAddr> {
        let all = self.all.iter().filter(move |known| known.kind == kind);
        all.map(|known| known.bound)
    }

    /// Each with the address that the configuration names it by.
    pub(super) fn named(&self) -> impl Iterator<Item = (ListenerId, SocketAddr)> {
        self.all.iter().map(|known| (known.id, known.named))
    }
}

impl Plan {
    fn open(&mut self, kind: Kind, named: SocketAddr) -> Result<Listener, listener::Error> {
        let listeners = listener::bind(named, self.listening.workers)?;
        let kept = self.estate.keep(kind, &listeners);
        kept.map_err(|source| listener::Error::Other {
            address: named,
            source,
        })?;
        let id = ListenerId(self.listening.next);
        self.listening.next += 1;
        let bound = listeners.address;
        let left = listeners.entrance.left;
        self.sockets.insert(id, listeners.sockets);
        self.opened.push(bound);
        Ok(Listener {
            id,
            kind,
            named,
            bound,
            left,
        })
    }
}

/// The addresses really bound by all of these.
pub(super) fn bound<'a>(all: impl IntoIterator<Item = &'a Listening>) -> Vec<SocketAddr> {
    let listeners = all.into_iter().flat_map(|listening| &listening.all);
    listeners.map(|known| known.bound).collect()
}

/// What is spoken at each address really bound by all of these.
pub(super) fn spoken<'a>(all: impl IntoIterator<Item = &'a Listening>) -> Vec<(Kind, SocketAddr)> {
    let listeners = all.into_iter().flat_map(|listening| &listening.all);
    listeners.map(|known| (known.kind, known.bound)).collect()
}

/// The listeners of the next worker, of `left` that have none yet: those in `sockets` are new to it.
pub(super) fn of_one_worker(
    entrances: &[Entrance],
    sockets: &mut Sockets,
    left: usize,
) -> Vec<(Entrance, Vec<TcpListener>)> {
    let one = |entrance: &Entrance| {
        let new = sockets.get_mut(&entrance.id);
        let part = new.map(|sockets| listener::take_part(sockets, left));
        (entrance.clone(), part.unwrap_or_default())
    };
    entrances.iter().map(one).collect()
}

fn explained(
    kind: Kind,
    error: &listener::Error,
    address: SocketAddr,
    closing: &[Listener],
) -> String {
    let key = match kind {
        Kind::Http => "listen.http",
        Kind::Https => "listen.https",
        Kind::Admin => "listen.admin",
    };
    let ours = closing
        .iter()
        .find(|known| known.bound.port() == address.port());
    match ours {
        Some(ours) => format!(
            "{key}: cannot listen on {address}: this process has the port as {}, which closes only when all is well: take that out by one reload, and put {address} in by the next",
            ours.bound
        ),
        None => format!("{key}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    fn config(http: &[&str], https: &[&str]) -> server::Config {
        let all = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        server::Config {
            http: all(http),
            https: all(https),
            ..server::Config::default()
        }
    }

    fn begin(config: &server::Config) -> Listening {
        begin_with_sockets(config).0
    }

    fn begin_with_sockets(config: &server::Config) -> (Listening, Sockets) {
        let inherited = &mut server::inherited::Dealt::default();
        let bound = listener::bind_public(config, &[], 1, inherited).unwrap();
        Listening::begin(wanted(config), bound, 1)
    }

    fn ids(listening: &Listening) -> Vec<u32> {
        listening.all.iter().map(|known| known.id.0).collect()
    }

    #[test]
    fn what_stays_keeps_its_number_wherever_it_stands() {
        let first = begin(&config(&[ANY], &[ANY]));
        let plan = first.plan(&wanted(&config(&[ANY], &[ANY]))).unwrap();
        assert_eq!(plan.listening.all, first.all);
        let more = first
            .plan(&wanted(&config(&["127.0.0.2:0", ANY], &[ANY])))
            .unwrap();
        assert_eq!(ids(&more.listening), [2, 0, 1]);
        assert_eq!((more.opened.len(), more.closed.len()), (1, 0));
        let less = more
            .listening
            .plan(&wanted(&config(&["127.0.0.2:0"], &[])))
            .unwrap();
        assert_eq!(ids(&less.listening), [2]);
        assert_eq!(less.closed, [first.all[0].bound, first.all[1].bound]);
        let again = less
            .listening
            .plan(&wanted(&config(&["127.0.0.2:0", ANY], &[])))
            .unwrap();
        assert_eq!(ids(&again.listening), [2, 3], "no number comes twice");
    }

    #[test]
    fn an_address_that_speaks_something_else_keeps_its_sockets() {
        let free = begin(&config(&[ANY], &[])).all[0].bound.to_string();
        let first = begin(&config(&[&free], &[]));
        let plan = first.plan(&wanted(&config(&[], &[&free]))).unwrap();
        assert_eq!(ids(&plan.listening), [0]);
        assert_eq!(plan.listening.all[0].kind, Kind::Https);
        assert!(plan.sockets.is_empty() && plan.opened.is_empty() && plan.closed.is_empty());
    }

    #[test]
    fn ports_that_are_taken_are_named_all_together() {
        let (first, _sockets) = begin_with_sockets(&config(&[ANY], &[]));
        let other = TcpListener::bind(ANY).unwrap();
        let theirs = other.local_addr().unwrap();
        let ours = first.all[0].bound;
        let wanted = wanted(&config(&[&theirs.to_string()], &[&ours.to_string()]));
        let problems = first.plan(&wanted).unwrap_err();
        let begins = |problem: &str, text: String| assert!(problem.starts_with(&text), "{problem}");
        assert_eq!(problems.len(), 2, "{problems:?}");
        begins(
            &problems[0],
            format!("listen.http: cannot listen on {theirs}: the port is taken by another program"),
        );
        begins(
            &problems[1],
            format!("listen.https: cannot listen on {ours}: this process has the port as {ours}"),
        );
    }
}
