//! The addresses of a name: asked of the name servers, and kept no longer than they say. And its texts,
//! which are asked for each time.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

use super::eyeballs::in_turn;

/// What every worker looks names up with: one cache for all.
#[derive(Clone)]
pub(super) struct Names {
    resolver: TokioResolver,
    /// Remembers nothing: a record that was just published counts.
    forgetful: TokioResolver,
    /// The runtime that carries look-ups: their sockets outlive the worker that asked.
    runtime: Handle,
}

/// Where a name server is: an address, with its port where that is not 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameServer(SocketAddr);

impl TryFrom<String> for NameServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse().or_else(|_| {
            let ip: Result<IpAddr, _> = text.parse();
            ip.map(|ip| SocketAddr::new(ip, DNS_PORT))
        });
        address.map(Self).map_err(|_| {
            format!(
                "`{text}` is no address of a name server: write it like \"9.9.9.9\" or \"127.0.0.1:5353\""
            )
        })
    }
}

impl From<NameServer> for String {
    fn from(server: NameServer) -> Self {
        server.to_string()
    }
}

impl From<SocketAddr> for NameServer {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            DNS_PORT => self.0.ip().fmt(out),
            _ => self.0.fmt(out),
        }
    }
}

const DNS_PORT: u16 = 53;

/// Why there are no TXT records of a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoTexts {
    /// There are none, or nobody says so.
    #[error("the name has no TXT record, or nobody knows")]
    Lookup(#[source] Box<NetError>),
    /// It took longer than `timeouts.connect`.
    #[error("asking for TXT records took too long")]
    TimedOut,
}

/// Answers that are kept, of all names together.
const MOST_ANSWERS: u64 = 4096;

/// An answer is asked for again after this long, even if it claims to be good for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// "There is no such name" is believed at least and at most this long: a storm of requests asks once,
/// and a name that was just made is found soon.
const MISSING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// How long IPv4 addresses wait for IPv6 ones (RFC 8305, 3): there are name servers that never answer
/// what they do not know. IPv6 ones wait for as long as a dial may take: where there is no route for
/// them, they are of no use alone.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

impl Names {
    /// Asks whom the system asks; a machine without name servers still has its hosts file.
    pub(super) fn of_system(runtime: Handle) -> Self {
        let (config, options) =
            hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|error| {
                tracing::warn!(%error, "no name servers are configured; only the hosts file is used");
                Default::default()
            });
        Self::new(&config, options, runtime)
    }

    /// Asks `servers`, after the hosts file.
    pub(super) fn of_servers(servers: &[NameServer], runtime: Handle) -> Self {
        let at = |NameServer(address): &NameServer| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .map(|mut connection| {
                    connection.port = address.port();
                    connection
                })
                .into();
            server
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(at).collect());
        Self::new(&config, ResolverOpts::default(), runtime)
    }

    fn new(config: &ResolverConfig, mut options: ResolverOpts, runtime: Handle) -> Self {
        bound(&mut options);
        let mut forgetting = options.clone();
        forgetting.cache_size = 0;
        let build = |options| {
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(config.clone(), provider)
                .with_options(options)
                .build()
                .expect("no option needs what is not built in")
        };
        let sockets_live_there = runtime.enter();
        let (resolver, forgetful) = (build(options), build(forgetting));
        drop(sockets_live_there);
        Self {
            resolver,
            forgetful,
            runtime,
        }
    }

    /// The TXT records of `name`, the strings of each in one piece (RFC 7208, 3.3, does so too).
    ///
    /// # Errors
    /// When there are none, or nobody says so.
    pub(super) async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NoTexts> {
        let asked = self.ask(&self.forgetful, name, RecordType::TXT).await;
        let found = match asked {
            Ok(found) => found.map_err(|error| NoTexts::Lookup(Box::new(error)))?,
            Err(gone) => {
                return Err(NoTexts::Lookup(Box::new(
                    std::io::Error::other(gone).into(),
                )));
            }
        };
        let text = |data: &RData| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            // A name on the way to it, say.
            _ => None,
        };
        let texts = found.answers().iter();
        Ok(texts.filter_map(|record| text(&record.data)).collect())
    }

    /// Every address of `host`, in the order in which they are to be tried.
    ///
    /// # Errors
    /// When there is none, or nobody says so.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Box<NetError>> {
        let v6 = self.ask(&self.resolver, host, RecordType::AAAA);
        let v4 = self.ask(&self.resolver, host, RecordType::A);
        let (first, other) = future::select(v6, v4).await.factor_first();
        let first = answered(first);
        let other = match &first {
            // If it comes later, the next one who asks finds it in the cache.
            Ok(found) if found.iter().any(IpAddr::is_ipv4) => {
                let other = tokio::time::timeout(RESOLUTION_DELAY, other).await;
                other.map_or_else(|_late| Ok(Vec::new()), answered)
            }
            _ => answered(other.await),
        };
        let (mut v6, mut v4) = (Vec::new(), Vec::new());
        for address in [&first, &other].into_iter().flatten().flatten() {
            match address {
                IpAddr::V6(_) => v6.push(*address),
                IpAddr::V4(_) => v4.push(*address),
            }
        }
        if v6.is_empty() && v4.is_empty() {
            let why = first.and(other).err();
            return Err(Box::new(why.unwrap_or_else(|| "it has no address".into())));
        }
        Ok(in_turn(v6, v4))
    }

    /// A task of its own for each look-up: it goes on to its end, whoever waits for it.
    fn ask(
        &self,
        resolver: &TokioResolver,
        host: &str,
        kind: RecordType,
    ) -> JoinHandle<Result<Lookup, NetError>> {
        let resolver = resolver.clone();
        // A dot at the end keeps the search list of resolv.conf out of it.
        let name = format!("{}.", host.trim_end_matches('.'));
        self.runtime
            .spawn(async move { resolver.lookup(name, kind).await })
    }
}

/// Nothing is kept for longer than it is good for, nor without end, nor in any number.
fn bound(options: &mut ResolverOpts) {
    options.cache_size = MOST_ANSWERS;
    options.positive_min_ttl = Some(Duration::ZERO);
    options.positive_max_ttl = Some(LONGEST);
    let [least, most] = MISSING;
    options.negative_min_ttl = Some(least);
    options.negative_max_ttl = Some(most);
}

fn answered(joined: Result<Result<Lookup, NetError>, JoinError>) -> Result<Vec<IpAddr>, NetError> {
    match joined {
        Ok(found) => found.map(|found| addresses(&found)),
        Err(gone) => Err(std::io::Error::other(gone).into()),
    }
}

fn addresses(found: &Lookup) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        // A name on the way to the address, say.
        _ => None,
    };
    found
        .answers()
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
