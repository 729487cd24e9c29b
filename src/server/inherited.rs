//! Listening sockets that another process bound: the one before this one, or systemd. Decides which is
//! whose; binds nothing.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use super::Config;
use super::listener::Listeners;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `listen.http`.
    Http,
    /// `listen.https`.
    Https,
    /// `listen.admin`.
    Admin,
}

impl Kind {
    /// The kind that systemd may name a socket by.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// The sockets of one address, bound by another process.
#[derive(Debug)]
pub struct Passed {
    /// What they were for, or are named for; systemd need not say it.
    pub kind: Option<Kind>,
    /// The address that the process before was asked to listen on.
    pub configured: Option<SocketAddr>,
    /// The address that they are bound to.
    pub bound: SocketAddr,
    /// Whether workers are to share them, by handles.
    pub is_shared: bool,
    /// What systemd calls them.
    pub name: Option<String>,
    /// They.
    pub sockets: Vec<TcpListener>,
}

/// All sockets that this process was given.
#[derive(Debug, Default)]
pub struct Inherited(pub Vec<Passed>);

/// Sockets of systemd that nothing in the configuration is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "systemd passed a socket for {bound}{}, and no address in [listen] is that one: write it there, or name the socket by FileDescriptorName=http, https or admin",
    .name.as_ref().map_or_else(String::new, |name| format!(", named `{name}`"))
)]
pub struct Unmatched {
    /// Where it is bound.
    pub bound: SocketAddr,
    /// Its name.
    pub name: Option<String>,
}

impl Inherited {
    /// Finds for each address in `config` the sockets that are meant for it: those bound to it; for port
    /// 0 those that the process before had bound for it; and those that systemd named by its kind.
    ///
    /// # Errors
    /// When a socket of systemd is left. What is left of the process before, it sees to itself.
    pub fn deal(self, config: &Config) -> Result<Dealt, Unmatched> {
        let mut left = self.0;
        let mut places: Vec<Place> = wanted(config).collect();
        for rule in [is_bound_there, was_asked_for, is_named_so] {
            for place in &mut places {
                if place.passed.is_none()
                    && let Some(index) = left.iter().position(|passed| rule(place, passed))
                {
                    place.passed = Some(left.remove(index));
                }
            }
        }
        match left.into_iter().find(|passed| passed.configured.is_none()) {
            Some(Passed { bound, name, .. }) => Err(Unmatched { bound, name }),
            None => Ok(Dealt(places)),
        }
    }
}

fn wanted(config: &Config) -> impl Iterator<Item = Place> {
    let http = config.http.iter().map(|address| (Kind::Http, *address));
    let https = config.https.iter().map(|address| (Kind::Https, *address));
    let admin = config.admin.map(|address| (Kind::Admin, address));
    let place = |(kind, address)| Place {
        kind,
        address,
        passed: None,
    };
    http.chain(https).chain(admin).map(place)
}

fn is_bound_there(place: &Place, passed: &Passed) -> bool {
    passed.bound == place.address
}

fn was_asked_for(place: &Place, passed: &Passed) -> bool {
    passed.configured == Some(place.address) && passed.kind == Some(place.kind)
}

fn is_named_so(place: &Place, passed: &Passed) -> bool {
    passed.configured.is_none() && passed.kind == Some(place.kind)
}

/// An address of the configuration.
#[derive(Debug)]
struct Place {
    kind: Kind,
    address: SocketAddr,
    passed: Option<Passed>,
}

/// What was inherited, address by address.
#[derive(Debug, Default)]
pub struct Dealt(Vec<Place>);

impl Dealt {
    /// The sockets for the next `address` of this kind.
    pub fn take(&mut self, kind: Kind, address: SocketAddr) -> Option<Passed> {
        let found = |place: &Place| place.kind == kind && place.address == address;
        let index = self.0.iter().position(found)?;
        self.0.remove(index).passed
    }
}

/// Whether a listener was left to another process, which accepts what waits in its queue. Two are equal that
/// are of one listener.
#[derive(Debug, Clone, Default)]
pub struct Left(Arc<AtomicBool>);

impl PartialEq for Left {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Left {}

impl Left {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Handles of the sockets that this process listens on, for the one that follows it. They keep a queue
/// open, so they go before the listeners do.
#[derive(Default)]
pub struct Estate(Vec<Kept>);

/// Those of one address.
struct Kept {
    passed: Passed,
    left: Left,
}

impl Estate {
    /// Keeps handles of `listeners`.
    ///
    /// # Errors
    /// When there is no descriptor for one.
    pub fn keep(&mut self, kind: Kind, listeners: &Listeners) -> io::Result<()> {
        let sockets = listeners.sockets.iter().take(listeners.distinct);
        let passed = Passed {
            kind: Some(kind),
            configured: Some(listeners.configured),
            bound: listeners.address,
            is_shared: listeners.is_shared,
            name: None,
            sockets: sockets
                .map(TcpListener::try_clone)
                .collect::<Result<_, _>>()?,
        };
        let left = listeners.entrance.left.clone();
        self.0.push(Kept { passed, left });
        Ok(())
    }

    /// Takes in what `more` has.
    pub fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Closes the handles of all sockets that are not bound to one of these addresses; the others are for what
    /// is said here from now on.
    pub fn keep_only(&mut self, these: &[(Kind, SocketAddr)]) {
        self.0.retain_mut(|Kept { passed, .. }| {
            let found = these.iter().find(|(_, bound)| *bound == passed.bound);
            passed.kind = found.map(|(kind, _)| *kind);
            found.is_some()
        });
    }

    /// What is passed on.
    pub fn passed(&self) -> impl Iterator<Item = &Passed> {
        self.0.iter().map(|kept| &kept.passed)
    }

    /// Closes all handles. The queues of those `taken` are another's from now on.
    pub fn leave(&mut self, taken: &[SocketAddr]) {
        for Kept { passed, left } in self.0.drain(..) {
            left.0
                .store(taken.contains(&passed.bound), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Estate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.passed().map(|passed| passed.bound);
        out.debug_tuple("Estate")
            .field(&addresses.collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn passed(kind: Option<Kind>, configured: Option<&str>) -> Passed {
        let socket = socket();
        Passed {
            kind,
            configured: configured.map(|address| address.parse().unwrap()),
            bound: socket.local_addr().unwrap(),
            is_shared: false,
            name: None,
            sockets: vec![socket],
        }
    }

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn sockets_go_to_the_addresses_that_they_are_bound_to_whatever_they_were() {
        let (one, two) = (passed(Some(Kind::Http), Some(ANY)), passed(None, None));
        let (http, https) = (two.bound, one.bound);
        let config = Config {
            http: vec![http],
            https: vec![https],
            ..Config::default()
        };
        let mut dealt = Inherited(vec![one, two]).deal(&config).unwrap();
        assert_eq!(dealt.take(Kind::Http, http).unwrap().bound, http);
        assert_eq!(dealt.take(Kind::Https, https).unwrap().bound, https);
        assert!(dealt.take(Kind::Http, http).is_none(), "once");
    }

    #[test]
    fn a_port_that_any_would_do_for_is_the_same_again() {
        let kinds = [Kind::Https, Kind::Http, Kind::Admin, Kind::Http];
        let all: Vec<Passed> = kinds
            .iter()
            .map(|kind| passed(Some(*kind), Some(ANY)))
            .collect();
        let bound: Vec<SocketAddr> = all.iter().map(|passed| passed.bound).collect();
        let any = ANY.parse().unwrap();
        let config = Config {
            http: vec![any, any],
            https: vec![any],
            admin: Some(any),
            ..Config::default()
        };
        let mut dealt = Inherited(all).deal(&config).unwrap();
        let mut next = |kind| dealt.take(kind, any).unwrap().bound;
        assert_eq!(next(Kind::Http), bound[1]);
        assert_eq!(next(Kind::Http), bound[3]);
        assert_eq!(next(Kind::Https), bound[0]);
        assert_eq!(next(Kind::Admin), bound[2]);
    }

    #[test]
    fn handles_of_what_is_not_listened_on_any_more_are_closed_and_of_the_rest_say_what_they_are_for()
     {
        let bind = || crate::server::listener::bind(ANY.parse().unwrap(), 2).unwrap();
        let (stays, goes) = (bind(), bind());
        let mut estate = Estate::default();
        estate.keep(Kind::Http, &stays).unwrap();
        let mut more = Estate::default();
        more.keep(Kind::Http, &goes).unwrap();
        estate.add(more);
        let (address, gone) = (stays.address, goes.address);
        drop((stays, goes));
        TcpListener::bind(gone).unwrap_err();
        estate.keep_only(&[(Kind::Https, address)]);
        TcpListener::bind(gone).unwrap();
        let left: Vec<&Passed> = estate.passed().collect();
        assert_eq!((left.len(), left[0].sockets.len()), (1, 2));
        assert_eq!((left[0].kind, left[0].bound), (Some(Kind::Https), address));
        estate.leave(&[]);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn all_sockets_of_systemd_for_one_address_are_passed_on_and_no_handle_of_them_twice() {
        let two = crate::server::listener::bind(ANY.parse().unwrap(), 2).unwrap();
        let address = two.address;
        let both = Passed {
            kind: None,
            configured: None,
            bound: address,
            is_shared: true,
            name: None,
            sockets: two.sockets,
        };
        let listeners = crate::server::listener::listen(address, 5, Some(both)).unwrap();
        assert_eq!(listeners.sockets.len(), 5);
        let mut estate = Estate::default();
        estate.keep(Kind::Http, &listeners).unwrap();
        let passed: Vec<&Passed> = estate.passed().collect();
        assert_eq!(passed[0].sockets.len(), 2);
    }

    #[test]
    fn what_the_process_before_has_and_this_one_wants_not_is_left_to_it() {
        let gone = passed(Some(Kind::Https), Some(ANY));
        let config = Config {
            http: vec![ANY.parse().unwrap()],
            ..Config::default()
        };
        let mut dealt = Inherited(vec![gone]).deal(&config).unwrap();
        assert!(dealt.take(Kind::Http, config.http[0]).is_none());
    }

    #[test]
    fn a_socket_of_systemd_is_found_by_its_name_and_one_that_is_not_is_an_error() {
        let config = Config {
            http: vec!["0.0.0.0:80".parse().unwrap()],
            ..Config::default()
        };
        let named = passed(Some(Kind::Http), None);
        let bound = named.bound;
        let mut dealt = Inherited(vec![named]).deal(&config).unwrap();
        let taken = dealt.take(Kind::Http, config.http[0]).unwrap();
        assert_eq!(taken.bound, bound);

        let mut unknown = passed(None, None);
        unknown.name = Some("front".to_owned());
        let bound = unknown.bound;
        let error = Inherited(vec![unknown]).deal(&config).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&bound.to_string()), "{text}");
        assert!(text.contains("`front`"), "{text}");
        assert!(text.contains("[listen]"), "{text}");
    }
}
