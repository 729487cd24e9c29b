//! Why an order gave no certificate. What is told holds no secret.

use std::fmt;
use std::io;
use std::time::Duration;

use super::client::ClientError;
use super::dns::DnsError;
use super::names::Name;
use crate::causes::with_causes;
use crate::telemetry::redact::HIDDEN;
use crate::tls::certificate::BadPair;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The authority refuses, or cannot be asked.
    #[error("{0}")]
    Authority(Told),
    /// The authority looked for a proof and did not find it.
    #[error("{name} was not proven by {challenge}: {told}")]
    Unproven {
        name: String,
        challenge: String,
        told: Told,
    },
    /// There is no way to prove a name.
    #[error(
        "nothing in tls.acme can prove {name}: the authority offers {offered}, a wildcard needs dns-01 with [tls.acme.dns]"
    )]
    NoWay { name: String, offered: String },
    /// The record of a proof could not be made.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// The certificate cannot be used.
    #[error("the authority gave a certificate that cannot be used: {0}")]
    Unusable(#[from] BadPair),
    /// The certificate is for something else.
    #[error("the authority gave a certificate without {0}")]
    NameMissing(Name),
    /// No key or request could be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The account cannot be read from its file.
    #[error(
        "account.json or account.der in tls.acme.folder cannot be read: remove it to register anew"
    )]
    BadAccount,
    /// The folder does not take what belongs in it.
    #[error("tls.acme.folder cannot be used: {0}")]
    Folder(#[from] io::Error),
    /// The whole took too long.
    #[error("the order took longer than tls.acme.order_timeout")]
    TimedOut,
    /// A task ended as it must not.
    #[error("the order ended in a panic")]
    Panicked,
    /// We end.
    #[error("the ingress ends")]
    Stopped,
}

/// What an authority or the way to it said, as a text that secrets can be taken out of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    text: String,
    /// The type of its problem (RFC 8555, 6.7).
    problem: Option<String>,
    /// How long it asks us to wait.
    retry_after: Option<Duration>,
}

impl Failure {
    /// How long the authority asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.told().and_then(|told| told.retry_after)
    }

    /// The type of the authority's problem.
    pub(super) fn problem(&self) -> Option<&str> {
        self.told().and_then(|told| told.problem.as_deref())
    }

    /// The same without `secret`: authorities repeat what they looked for.
    pub(super) fn without(mut self, secret: &str) -> Self {
        if let Self::Authority(told) | Self::Unproven { told, .. } = &mut self {
            told.text = told.text.replace(secret, HIDDEN);
        }
        self
    }

    fn told(&self) -> Option<&Told> {
        match self {
            Self::Authority(told) | Self::Unproven { told, .. } => Some(told),
            _ => None,
        }
    }
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Self {
        Self::Authority(Told::from(error))
    }
}

impl From<instant_acme::Error> for Told {
    fn from(error: instant_acme::Error) -> Self {
        let text = shortened(&with_causes(&error));
        match error {
            instant_acme::Error::Api(problem) => Self::from(problem),
            instant_acme::Error::Other(error) => {
                let refused = error.downcast_ref::<ClientError>();
                let (retry_after, problem) = match refused {
                    Some(ClientError::Refused {
                        retry_after,
                        problem,
                        ..
                    }) => (*retry_after, problem.clone()),
                    _ => (None, None),
                };
                Self {
                    text,
                    problem,
                    retry_after,
                }
            }
            // What the library says of JSON that it cannot read repeats what it found.
            instant_acme::Error::Json(_) => Self {
                text: "the authority's answer is not what it should be".to_owned(),
                ..Self::default()
            },
            _ => Self {
                text,
                ..Self::default()
            },
        }
    }
}

impl From<instant_acme::Problem> for Told {
    fn from(problem: instant_acme::Problem) -> Self {
        Self {
            text: told(&problem),
            problem: problem.r#type,
            retry_after: None,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// More is not told of why an authority refused.
const LONGEST: usize = 1000;

/// A problem in its own words: the library calls every authority an API, which is something else here.
pub(super) fn told(problem: &instant_acme::Problem) -> String {
    let text = problem.to_string();
    shortened(&text.replacen("API error", "the authority says", 1))
}

/// At most so much of a text, on one line.
pub(super) fn shortened(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(LONGEST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_its_type_and_without_the_secret_in_it() {
        let problem: instant_acme::Problem = serde_json::from_str(
            r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"expected tok.canary\n"}"#,
        )
        .unwrap();
        let failure = Failure::Unproven {
            name: "m3o.app".to_owned(),
            challenge: "http-01".to_owned(),
            told: Told::from(problem),
        };
        assert_eq!(
            failure.problem(),
            Some("urn:ietf:params:acme:error:unauthorized")
        );
        let failure = failure.without("canary");
        let text = format!("{failure} {failure:?}");
        assert!(
            !text.contains("canary") && !failure.to_string().contains('\n'),
            "{text}"
        );
        assert!(text.contains("m3o.app was not proven by http-01"), "{text}");
    }

    #[test]
    fn a_limit_is_told_with_how_long_to_wait() {
        let refused = ClientError::Refused {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            detail: "too many".to_owned(),
            problem: Some("urn:ietf:params:acme:error:rateLimited".to_owned()),
            retry_after: Some(Duration::from_secs(9)),
        };
        let failure = Failure::from(instant_acme::Error::Other(Box::new(refused)));
        assert_eq!(failure.retry_after(), Some(Duration::from_secs(9)));
        assert!(failure.problem().unwrap().ends_with("rateLimited"));
        assert!(failure.to_string().contains("too many"), "{failure}");
    }
}
