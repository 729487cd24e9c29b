//! What a line of the access log says, whether there is one, and how it looks.
//!
//! Whatever somebody else wrote stands in an [`Entry`] as it may be logged, and passes
//! [`redact::scrub`] once more as it is written.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Version};

use super::client::Side;
use super::log::Layout;
use super::traces::{SpanId, TraceId};
use super::{Config, redact};
use crate::units::Share;
use crate::wire::Scheme;

mod combined;
mod human;
mod json;
mod stamp;
#[cfg(test)]
mod tests;

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    on: bool,
    /// Of those with a 2xx.
    sample: Share,
    /// What took so long has a line always.
    slow: Duration,
}

/// Whether one request has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Always.
    Always,
    /// It stands for others too: it is one of this share.
    Sampled(Share),
    /// It has none.
    No,
}

thread_local! {
    /// How much of the next line is due on this thread, in millionths.
    static DUE: Cell<u32> = const { Cell::new(0) };
}

impl Access {
    /// As `config` says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            on: config.access,
            sample: config.sample,
            slow: config.slow,
        }
    }

    /// Whether there are lines at all.
    pub(super) fn is_on(self) -> bool {
        self.on
    }

    /// Whether a request has one that came to its end with `status` after `took`.
    pub(super) fn keep(self, status: u16, took: Duration) -> Keep {
        let is_fine = (200..300).contains(&status);
        if !is_fine || self.sample == Share::ALL || took >= self.slow {
            return Keep::Always;
        }
        let due = DUE.get() + self.sample.millionths();
        let whole = Share::ALL.millionths();
        if due >= whole {
            DUE.set(due - whole);
            Keep::Sampled(self.sample)
        } else {
            DUE.set(due);
            Keep::No
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the last byte of its answer.
    Complete,
    /// The client went before the end.
    ClientLeft,
    /// The backend broke off, or the ingress did: at the end of its drain, say.
    Cut,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientLeft => "client_left",
            Self::Cut => "cut",
        }
    }
}

/// What one line says. Texts of others are as they may be logged.
pub(super) struct Entry<'a> {
    pub(super) ended: SystemTime,
    pub(super) client: &'a HeaderValue,
    pub(super) scheme: Scheme,
    /// The version of TLS; `None` without it.
    pub(super) tls: Option<&'static str>,
    pub(super) method: &'a str,
    pub(super) host: Option<Cow<'a, str>>,
    pub(super) path: Cow<'a, str>,
    pub(super) query: Option<String>,
    pub(super) version: Option<Version>,
    pub(super) status: u16,
    pub(super) took: Duration,
    /// Octets of the request's body that were read.
    pub(super) received: u64,
    /// Octets of the answer's body.
    pub(super) sent: u64,
    pub(super) route: &'static str,
    pub(super) app: Option<&'a str>,
    pub(super) cache: Option<&'static str>,
    pub(super) outcome: Outcome,
    pub(super) error: Option<&'static str>,
    pub(super) cause: Option<&'a str>,
    pub(super) call: Option<&'a Call>,
    pub(super) user_agent: Option<Cow<'a, str>>,
    pub(super) referer: Option<String>,
    pub(super) request_id: &'a str,
    pub(super) trace_id: Option<TraceId>,
    pub(super) sampled: Option<Share>,
}

/// A request of ours on behalf of the client's: who was asked, and what became of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) side: Side,
    pub(super) address: HeaderValue,
    pub(super) port: u16,
    pub(super) method: Method,
    /// What it is in the trace of the client's request, where there is one.
    pub(super) span: Option<SpanId>,
    /// How long after the client's request began.
    pub(super) after: Duration,
    /// How long until there was a response, or could be none any more; `None`: it is on its way.
    pub(super) took: Option<Duration>,
    /// That of the response; `None`: there is none.
    pub(super) status: Option<StatusCode>,
}

impl Entry<'_> {
    /// Appends the line, its newline included.
    pub(super) fn write(&self, layout: Layout, out: &mut Vec<u8>) {
        match layout {
            Layout::Json => json::write(self, out),
            Layout::Human => human::write(self, out),
            Layout::Combined => combined::write(self, out),
        }
        out.push(b'\n');
    }

    /// Whether there was a request at all.
    fn is_request(&self) -> bool {
        self.version.is_some()
    }
}

/// A text of somebody else, as a line holds it. It is cut when it is scrubbed: a secret whose end is
/// not there may look like none.
pub(super) fn foreign(text: &str) -> Cow<'_, str> {
    let room = |text: &str| text.floor_char_boundary(MAX_LOGGED);
    match redact::scrub(&text[..text.floor_char_boundary(MAX_READ)]) {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..room(text)]),
        Cow::Owned(mut text) => {
            text.truncate(room(&text));
            Cow::Owned(text)
        }
    }
}

/// Octets of one value in a line.
const MAX_LOGGED: usize = 1024;

/// Octets of it that are scrubbed: no host is so long that a password before it would end behind them.
const MAX_READ: usize = MAX_LOGGED + redact::LONGEST_AUTHORITY + 2;

pub(super) fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Appends a number.
fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends milliseconds, to the microsecond.
fn milliseconds(out: &mut Vec<u8>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    out.push(b'.');
    let rest = micros % 1000;
    for digit in [rest / 100, rest / 10 % 10, rest % 10] {
        out.push(b'0' + digit as u8);
    }
}

/// The status of a request that a client left unanswered, as nginx numbers it.
pub(super) const CLIENT_LEFT: u16 = 499;

/// The status of a request that nobody answered.
pub(super) fn unanswered(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::ClientLeft => CLIENT_LEFT,
        Outcome::Complete | Outcome::Cut => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
    }
}
