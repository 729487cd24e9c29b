//! Requests of clients: how many there are, how long they took, and how large they were.
//!
//! What tells them apart comes from clients and backends, so the number of its combinations is bounded:
//! the first ones have series of their own, all others share a coarse one.

use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Method, Version};
use prometheus::proto::{MetricFamily, MetricType};

use super::exposition;
use super::histogram::{BYTES, Histogram, SECONDS};
use super::labels::{AppKind, CacheResult, RouteKind};
use super::shards::Sharded;
use crate::wire::Scheme;

/// How something was asked for, in the words of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    method: u8,
    version: u8,
    scheme: Scheme,
}

/// The methods of RFC 9110 and RFC 5789, and at first all others.
const METHODS: [&str; 10] = [
    "_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// At first that of what was no request.
const VERSIONS: [&str; 5] = ["", "1.0", "1.1", "2", "3"];

const SCHEMES: [Scheme; 2] = [Scheme::Http, Scheme::Https];

impl Asked {
    /// As `method`, over `version`.
    pub(super) fn by(method: &Method, version: Version, scheme: Scheme) -> Self {
        Self {
            method: match *method {
                Method::GET => 1,
                Method::HEAD => 2,
                Method::POST => 3,
                Method::PUT => 4,
                Method::DELETE => 5,
                Method::CONNECT => 6,
                Method::OPTIONS => 7,
                Method::TRACE => 8,
                Method::PATCH => 9,
                _ => 0,
            },
            version: match version {
                Version::HTTP_10 => 1,
                Version::HTTP_11 => 2,
                Version::HTTP_2 => 3,
                Version::HTTP_3 => 4,
                _ => 0,
            },
            scheme,
        }
    }

    /// By what was no request.
    pub(super) fn badly(scheme: Scheme) -> Self {
        Self {
            method: 0,
            version: 0,
            scheme,
        }
    }
}

/// The statuses of IANA's list, and nginx's for a client that left. Others are told apart by class.
#[rustfmt::skip]
const STATUSES: [u16; 63] = [
    100, 101, 102, 103,
    200, 201, 202, 203, 204, 205, 206, 207, 208, 226,
    300, 301, 302, 303, 304, 305, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418,
    421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
    500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// The classes of a status, which come after the statuses.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const STATES: usize = STATUSES.len() + CLASSES.len();
const PLACES: usize = METHODS.len() * VERSIONS.len() * SCHEMES.len() * RouteKind::COUNT * STATES;

/// Of each status below 600 its place among [`STATES`].
static STATE_OF: [u8; 600] = states();

const fn states() -> [u8; 600] {
    let mut states = [0; 600];
    let mut status = 0;
    while status < states.len() {
        let class = if status < 100 { 4 } else { status / 100 - 1 };
        states[status] = (STATUSES.len() + class) as u8;
        status += 1;
    }
    let mut index = 0;
    while index < STATUSES.len() {
        states[STATUSES[index] as usize] = index as u8;
        index += 1;
    }
    states
}

/// Which class a status belongs to, as an index of [`CLASSES`]. What is none is the last.
pub(super) fn class(status: u16) -> usize {
    match usize::from(status / 100) {
        class @ 1..=4 => class - 1,
        _ => CLASSES.len() - 1,
    }
}

/// The most combinations that can have series of their own.
pub const MOST_COMBINATIONS: usize = 4096;

/// Of each scheme, route and class the rest.
const COARSE: usize = SCHEMES.len() * RouteKind::COUNT * CLASSES.len();

/// What is counted of requests.
#[derive(Debug)]
pub(super) struct Requests {
    /// Of each combination the number of its series, counted from 1; 0: none yet.
    places: Box<[AtomicU16]>,
    durations: Box<[OnceLock<Told>]>,
    /// Held while a combination is met for the first time.
    known: Mutex<Known>,
    /// How many combinations may have series of their own.
    limit: AtomicUsize,
    received: [Histogram; RouteKind::COUNT],
    sent: [Histogram; RouteKind::COUNT],
    busy: Sharded<Busy>,
}

/// What changes with each request.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Busy {
    /// How many have begun and not ended; on one thread alone it may be any number.
    active: AtomicU64,
    resolved: [[AtomicU64; CacheResult::ALL.len()]; AppKind::ALL.len()],
}

/// Added to a number that may go round.
const MINUS_ONE: u64 = u64::MAX;

/// How many series there are.
#[derive(Debug, Default)]
struct Known {
    all: usize,
    own: usize,
}

/// The durations of one combination.
#[derive(Debug)]
struct Told {
    combination: Combination,
    histogram: Histogram,
}

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Combination {
    asked: Asked,
    route: RouteKind,
    state: u8,
}

/// What is known of a request when it has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) asked: Asked,
    pub(super) route: RouteKind,
    pub(super) status: u16,
    pub(super) took: Duration,
    /// Octets of its body; `None` where it had none.
    pub(super) received: Option<u64>,
    /// Octets of the answer's body.
    pub(super) sent: u64,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_place| AtomicU16::new(0)).collect(),
            durations: (0..MOST_COMBINATIONS + COARSE)
                .map(|_number| OnceLock::new())
                .collect(),
            known: Mutex::default(),
            limit: AtomicUsize::new(0),
            received: std::array::from_fn(|_route| Histogram::new(&BYTES)),
            sent: std::array::from_fn(|_route| Histogram::new(&BYTES)),
            busy: Sharded::new(),
        }
    }

    /// So many combinations may have series of their own. Those that have some keep them.
    pub(super) fn limit_to(&self, combinations: usize) {
        let limit = combinations.min(MOST_COMBINATIONS);
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) {
        self.busy.mine().add(|busy| &busy.active, 1);
    }

    pub(super) fn end(&self, ended: &Ended) {
        self.busy.mine().add(|busy| &busy.active, MINUS_ONE);
        let combination = Combination {
            asked: ended.asked,
            route: ended.route,
            state: STATE_OF[usize::from(ended.status).min(STATE_OF.len() - 1)],
        };
        if let Some(told) = self.told(combination) {
            told.histogram.observe_time(ended.took);
        }
        let route = ended.route as usize;
        if let Some(received) = ended.received {
            self.received[route].observe(received);
        }
        self.sent[route].observe(ended.sent);
    }

    pub(super) fn resolved(&self, kind: AppKind, result: CacheResult) {
        let count = self.busy.mine();
        count.add(|busy| &busy.resolved[kind as usize][result as usize], 1);
    }

    /// The series that `combination` is counted in.
    fn told(&self, combination: Combination) -> Option<&Told> {
        let number = match self.places[combination.place()].load(Ordering::Acquire) {
            0 => self.meet(combination),
            number => number,
        };
        self.durations.get(usize::from(number) - 1)?.get()
    }

    /// Gives a combination that is new its series: its own, or that of all such.
    #[cold]
    fn meet(&self, combination: Combination) -> u16 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &self.places[combination.place()];
        let met = place.load(Ordering::Acquire);
        if met > 0 {
            return met;
        }
        let coarse = combination.coarse();
        let number = if known.own < self.limit.load(Ordering::Relaxed) && combination != coarse {
            known.own += 1;
            self.open(&mut known, combination)
        } else {
            match self.places[coarse.place()].load(Ordering::Acquire) {
                0 => self.open(&mut known, coarse),
                number => number,
            }
        };
        place.store(number, Ordering::Release);
        number
    }

    fn open(&self, known: &mut Known, combination: Combination) -> u16 {
        self.durations[known.all].get_or_init(|| Told {
            combination,
            histogram: Histogram::new(&SECONDS),
        });
        known.all += 1;
        let number = u16::try_from(known.all).expect("there are fewer series than that");
        self.places[combination.place()].store(number, Ordering::Release);
        number
    }

    /// All series as they are now.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let active = self.busy.sum(|busy| busy.active.load(Ordering::Relaxed));
        let active = exposition::gauge(&[], active.cast_signed() as f64);
        let told = self.durations.iter().map_while(OnceLock::get);
        let durations = told.map(|told| {
            let Combination {
                asked,
                route,
                state,
            } = told.combination;
            let labels = [
                ("http_request_method", METHODS[usize::from(asked.method)]),
                ("http_response_status_code", &*state_label(state)),
                ("http_route", route.as_str()),
                (
                    "network_protocol_version",
                    VERSIONS[usize::from(asked.version)],
                ),
                ("url_scheme", asked.scheme.as_str()),
            ];
            exposition::histogram(&labels, told.histogram.to_proto())
        });
        let sizes = |histograms: &[Histogram]| {
            let routes = RouteKind::ALL.iter().zip(histograms);
            routes
                .map(|(route, histogram)| {
                    let labels = [("http_route", route.as_str())];
                    exposition::histogram(&labels, histogram.to_proto())
                })
                .collect()
        };
        let resolved = AppKind::ALL.iter().flat_map(|kind| {
            CacheResult::ALL.iter().map(|result| {
                let labels = [("kind", kind.route().as_str()), ("result", result.as_str())];
                let count = |busy: &Busy| {
                    busy.resolved[*kind as usize][*result as usize].load(Ordering::Relaxed)
                };
                exposition::counter(&labels, self.busy.sum(count) as f64)
            })
        });
        vec![
            exposition::family(
                "http_server_active_requests",
                "Requests being answered",
                MetricType::GAUGE,
                vec![active],
            ),
            exposition::family(
                "http_server_request_duration_seconds",
                "Time from a request's head to the end of its response",
                MetricType::HISTOGRAM,
                durations.collect(),
            ),
            exposition::family(
                "http_server_request_body_size_bytes",
                "Octets that came of the bodies of requests that have one",
                MetricType::HISTOGRAM,
                sizes(&self.received),
            ),
            exposition::family(
                "http_server_response_body_size_bytes",
                "Octets that left of the bodies of responses",
                MetricType::HISTOGRAM,
                sizes(&self.sent),
            ),
            exposition::family(
                "m3o_ingress_resolve_cache_total",
                "Lookups of backends, by what the cache had",
                MetricType::COUNTER,
                resolved.collect(),
            ),
        ]
    }
}

impl Combination {
    fn place(self) -> usize {
        let asked = self.asked;
        let mut place = self.route as usize;
        place = place * SCHEMES.len() + asked.scheme as usize;
        place = place * VERSIONS.len() + usize::from(asked.version);
        place = place * METHODS.len() + usize::from(asked.method);
        place * STATES + usize::from(self.state)
    }

    /// What is left of it where there are too many: its scheme, its route, and the class of its status.
    fn coarse(self) -> Self {
        let state = usize::from(self.state);
        let class = match STATUSES.get(state) {
            Some(status) => class(*status),
            None => state - STATUSES.len(),
        };
        Self {
            asked: Asked::badly(self.asked.scheme),
            route: self.route,
            state: u8::try_from(STATUSES.len() + class).unwrap_or(u8::MAX),
        }
    }
}

fn state_label(state: u8) -> String {
    let state = usize::from(state);
    match STATUSES.get(state) {
        Some(status) => status.to_string(),
        None => CLASSES[state - STATUSES.len()].to_owned(),
    }
}

#[cfg(test)]
mod tests;
