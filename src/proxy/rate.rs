//! How often a client may ask: what a request counts for, and how its answer says what is left.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::Error;
use super::headers::{self, Trust};
use super::{Client, Proxy};
use crate::credentials::{Credentials, Secret};
use crate::rates::{Checked, Exceeded, Rates, Scope, Standing};
use crate::resolve::Workload;
use crate::telemetry::exchange::Exchange;
use crate::telemetry::metrics::Shed;
use crate::wire::Peer;

/// What is left of a rate, and the rate itself (draft-ietf-httpapi-ratelimit-headers-11, 4 and 3).
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Proxy {
    /// Counts a request for whoever sent it, before any work is done for it. Gives the rates that it is to
    /// be counted by from then on: none where its client is exempt.
    pub(super) fn begin_counting<'a>(
        &self,
        rates: &'a Rates,
        fields: &HeaderMap,
        peer: &Peer,
        trust: Trust,
        exchange: &mut Exchange,
    ) -> (Option<&'a Rates>, Result<(), Error>) {
        let client = headers::client_address(fields, peer, trust, &self.settings.trusted);
        if rates.exempt(client) {
            return (None, Ok(()));
        }
        (Some(rates), self.count(rates.peer(client), exchange))
    }

    /// Counts a call for its key: the one in its field, else `key`. Whether there was one to count.
    pub(super) fn count_key(
        &self,
        fields: &HeaderMap,
        key: Option<&Secret>,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<bool, Error> {
        let Some(rates) = client.rates.filter(|rates| rates.limit_keys()) else {
            return Ok(true);
        };
        let in_field = key_in(fields)?;
        let Some(key) = in_field.as_ref().or(key) else {
            return Ok(false);
        };
        self.count(rates.key(key), exchange)?;
        Ok(true)
    }

    /// Counts a request for the app or function that it goes to.
    pub(super) fn count_app(
        &self,
        workload: &Workload,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), Error> {
        match client.rates {
            Some(rates) => self.count(rates.app(workload.kind, &workload.id), exchange),
            None => Ok(()),
        }
    }

    /// Notes where a request stands: of several rates that of which least is left.
    fn count(&self, checked: Checked, exchange: &mut Exchange) -> Result<(), Error> {
        let exceeded = match checked {
            Ok(None) => return Ok(()),
            Ok(Some(standing)) => {
                let noted = exchange.standing.get_or_insert(standing);
                if standing.left < noted.left {
                    *noted = standing;
                }
                return Ok(());
            }
            Err(exceeded) => exceeded,
        };
        let Exceeded(standing) = exceeded;
        exchange.standing = Some(standing);
        self.telemetry.metrics.shed(match standing.scope {
            Scope::Peer => Shed::RatePeer,
            Scope::Key => Shed::RateKey,
            Scope::App => Shed::RateApp,
        });
        Err(Error::Exceeded(exceeded))
    }
}

/// What a call counts by: the key in its field, so that it counts once however it is written.
///
/// # Errors
/// When it cannot be read. To count it as it stands would let one key count in many ways.
pub(super) fn key_in(fields: &HeaderMap) -> Result<Option<Secret>, Error> {
    let field = fields.get(header::AUTHORIZATION).cloned();
    let key = field.map(|field| Credentials::from_header(field).distinct());
    key.transpose()
        .map_err(|_| Error::Malformed("the credentials in Authorization are no base64"))
}

/// Says in the answer where its request stands. What a backend says of rates of its own stays there: both
/// fields are lists.
pub(super) fn tell(standing: &Standing, headers: &mut HeaderMap) {
    let [policy, limit] = written(standing);
    headers.append(RATELIMIT_POLICY, policy);
    headers.append(RATELIMIT, limit);
}

fn written(standing: &Standing) -> [HeaderValue; 2] {
    let Standing {
        scope,
        quota,
        window,
        left,
        reset,
    } = standing;
    let name = scope.as_str();
    let value = |text: String| HeaderValue::try_from(text).expect("words and numbers");
    [
        value(format!("\"{name}\";q={quota};w={window}")),
        value(format!("\"{name}\";r={left};t={reset}")),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a structured field of one item, a string, with parameters that are integers (RFC 9651, 4.2).
    fn read(value: &HeaderValue) -> Option<(String, Vec<(String, u64)>)> {
        let text = value.to_str().ok()?.strip_prefix('"')?;
        let (name, rest) = text.split_once('"')?;
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if !name.bytes().all(is_plain) {
            return None;
        }
        let mut parameters = Vec::new();
        for parameter in rest.strip_prefix(';')?.split(';') {
            let (key, number) = parameter.split_once('=')?;
            let is_key = key.starts_with(|first: char| first.is_ascii_lowercase());
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            // No integer of a structured field has more than 15 digits (RFC 9651, 3.3.1).
            if !is_key || !digits || !(1..=15).contains(&number.len()) {
                return None;
            }
            parameters.push((key.to_owned(), number.parse().ok()?));
        }
        Some((name.to_owned(), parameters))
    }

    proptest! {
        #[test]
        fn what_is_said_of_a_rate_reads_as_a_structured_field(
            scope in prop_oneof![Just(Scope::Peer), Just(Scope::Key), Just(Scope::App)],
            quota: u32,
            window: u32,
            left: u32,
            reset: u32,
        ) {
            let standing = Standing { scope, quota, window, left, reset };
            let [policy, limit] = written(&standing);
            let name = scope.as_str().to_owned();
            let numbers = |of: [(&str, u32); 2]| of.map(|(key, n)| (key.to_owned(), n.into())).to_vec();
            let expected = numbers([("q", quota), ("w", window)]);
            prop_assert_eq!(read(&policy), Some((name.clone(), expected)));
            let expected = numbers([("r", left), ("t", reset)]);
            prop_assert_eq!(read(&limit), Some((name, expected)));
        }
    }

    #[test]
    fn a_backends_own_limits_stay_beside_ours() {
        let mut headers = HeaderMap::new();
        let theirs = HeaderValue::from_static("\"daily\";r=5");
        headers.insert(RATELIMIT, theirs.clone());
        let standing = Standing {
            scope: Scope::Peer,
            quota: 100,
            window: 60,
            left: 57,
            reset: 12,
        };
        tell(&standing, &mut headers);
        let all: Vec<_> = headers.get_all(RATELIMIT).iter().collect();
        assert_eq!(all, [theirs.as_bytes(), b"\"peer\";r=57;t=12"]);
        assert_eq!(headers[RATELIMIT_POLICY], "\"peer\";q=100;w=60");
    }
}
