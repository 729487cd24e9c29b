//! One order from its beginning to a certificate (RFC 8555, 7.4). Keeps nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use tokio_util::sync::CancellationToken;

use super::account::Registration;
use super::config::{Challenge, KeyType};
use super::dns::Solver;
use super::failure::{Failure, Told};
use super::names::NameSet;
use super::proof::Proofs;
use crate::tls::certificate::Certificate;
use crate::tls::challenges::Challenges;

/// What every order needs.
pub(super) struct Tools {
    pub(super) registration: Registration,
    pub(super) challenges: Arc<Challenges>,
    pub(super) solver: Option<Solver>,
    pub(super) preferred: Vec<Challenge>,
    pub(super) key_type: KeyType,
    pub(super) timeout: Duration,
    /// Once it is cancelled, orders are given up and cleaned up after.
    pub(super) stop: CancellationToken,
}

/// What is ordered.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) names: NameSet,
    /// The certificate whose place the new one takes (RFC 9773, 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    /// How many orders failed before: each one tries the next way to prove a name.
    pub(super) failures: u32,
    /// Whether a client waits: a record in the DNS takes too long then.
    pub(super) at_once: bool,
}

/// A certificate as the authority gave it.
pub(super) struct Issued {
    pub(super) certificate: Certificate,
    /// Its key, then its chain.
    pub(super) pem: Vec<u8>,
}

/// Between two looks at what the authority does; it says so itself where it wants more.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// Each pause is so much longer than the one before.
const SLOWER: f32 = 1.5;

/// Orders, proves, and fetches the certificate.
///
/// # Errors
/// When there is none; what was shown to prove a name is taken away all the same.
pub(super) async fn order(tools: Rc<Tools>, wanted: Wanted) -> Result<Issued, Failure> {
    let mut proofs = Proofs::new(&tools.challenges, tools.solver.as_ref());
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(tools.timeout, place(&tools, &wanted, &mut proofs)) => {
            outcome.unwrap_or(Err(Failure::TimedOut))
        }
        () = tools.stop.cancelled() => Err(Failure::Stopped),
    };
    proofs.remove().await;
    if let Err(failure) = &outcome {
        tools.registration.learn(failure).await;
    }
    outcome
}

async fn place(tools: &Tools, wanted: &Wanted, proofs: &mut Proofs<'_>) -> Result<Issued, Failure> {
    let account = tools.registration.account().await?;
    let issued = place_with(&account, tools, wanted, proofs).await;
    issued.map_err(|failure| failure.without(account.key_thumbprint()))
}

async fn place_with(
    account: &Account,
    tools: &Tools,
    wanted: &Wanted,
    proofs: &mut Proofs<'_>,
) -> Result<Issued, Failure> {
    let names = wanted.names.iter();
    let identifiers: Vec<_> = names
        .map(|name| Identifier::Dns(name.as_str().to_owned()))
        .collect();
    let mut new = NewOrder::new(&identifiers);
    // An authority that fails over it is asked without it the next time.
    if let Some(replaces) = wanted.replaces.clone().filter(|_| wanted.failures == 0) {
        new = new.replaces(replaces);
    }
    let mut order = account.new_order(&new).await?;
    prove(&mut order, tools, wanted, proofs).await?;
    let (request, key) = certificate_request(wanted.names.clone(), tools.key_type).await?;
    order.finalize_csr(&request).await?;
    let chain = order.poll_certificate(&looks(tools)).await?;
    issued(&wanted.names, &key, &chain)
}

/// Shows a proof for every name that needs one, and waits until the authority has seen them.
async fn prove(
    order: &mut Order,
    tools: &Tools,
    wanted: &Wanted,
    proofs: &mut Proofs<'_>,
) -> Result<(), Failure> {
    let mut chosen = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            chosen.push(None);
            continue;
        }
        let name = authorization.identifier().to_string();
        let offered: Vec<_> = authorization
            .challenges
            .iter()
            .map(|each| each.r#type.clone())
            .collect();
        let way = choose(tools, wanted, name.starts_with("*."), &offered);
        let no_way = || Failure::NoWay {
            name: name.clone(),
            offered: listed(&offered),
        };
        let way = way.ok_or_else(no_way)?;
        let challenge = authorization.challenge(way.into()).ok_or_else(no_way)?;
        let domain = name.strip_prefix("*.").unwrap_or(&name);
        let authorization = challenge.key_authorization();
        proofs
            .show(way, domain, &challenge.token, &authorization)
            .await?;
        chosen.push(Some(way));
    }
    let mut authorizations = order.authorizations();
    let mut ways = chosen.into_iter();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if let Some(way) = ways.next().flatten()
            && let Some(mut challenge) = authorization.challenge(way.into())
        {
            challenge.set_ready().await?;
        }
    }
    match order.poll_ready(&looks(tools)).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => Ok(()),
        Ok(OrderStatus::Invalid | OrderStatus::Pending) => Err(blame(order, None).await),
        Err(error) => Err(blame(order, Some(error)).await),
    }
}

/// Which way to prove a name: of those that are configured, can be gone and are offered, the preferred
/// one, and after a failure the next.
fn choose(
    tools: &Tools,
    wanted: &Wanted,
    wildcard: bool,
    offered: &[ChallengeType],
) -> Option<Challenge> {
    let can_go = |way: Challenge| match way {
        Challenge::Dns01 => tools.solver.is_some() && !wanted.at_once,
        Challenge::TlsAlpn01 | Challenge::Http01 => !wildcard,
    };
    let ways: Vec<_> = tools
        .preferred
        .iter()
        .copied()
        .filter(|way| can_go(*way) && offered.contains(&ChallengeType::from(*way)))
        .collect();
    let turn = usize::try_from(wanted.failures).unwrap_or_default();
    ways.get(turn.checked_rem(ways.len())?).copied()
}

/// What the authority found wrong with a proof; the order itself often does not say.
async fn blame(order: &mut Order, error: Option<instant_acme::Error>) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let failed = state
            .challenges
            .iter()
            .find_map(|challenge| Some((challenge, challenge.error.clone()?)));
        if let Some((challenge, problem)) = failed {
            return Failure::Unproven {
                name: state.identifier().to_string(),
                challenge: listed(std::slice::from_ref(&challenge.r#type)),
                told: Told::from(problem),
            };
        }
    }
    match error {
        Some(error) => error.into(),
        None => instant_acme::Error::Str("the order is not ready, and nothing says why").into(),
    }
}

fn listed(offered: &[ChallengeType]) -> String {
    let names = offered.iter().map(|kind| match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        _ => "one that we do not know",
    });
    names.collect::<Vec<_>>().join(", ")
}

fn looks(tools: &Tools) -> RetryPolicy {
    RetryPolicy::new()
        .initial_delay(FIRST_LOOK)
        .backoff(SLOWER)
        .timeout(tools.timeout)
}

/// A request for a certificate and its key in PEM. A key of RSA takes its time, so it is made elsewhere.
async fn certificate_request(
    names: NameSet,
    key_type: KeyType,
) -> Result<(Vec<u8>, String), Failure> {
    let make = move || {
        let key = match key_type {
            KeyType::P256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyType::P384 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyType::Rsa2048 => {
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
        }?;
        let names: Vec<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let request = parameters.serialize_request(&key)?;
        Ok((request.der().to_vec(), key.serialize_pem()))
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or(Err(Failure::Panicked))
}

/// Holds an answer to what was ordered.
fn issued(names: &NameSet, key: &str, chain: &str) -> Result<Issued, Failure> {
    let label = names.first().as_str();
    let certificate = Certificate::from_pem(label, chain.as_bytes(), key.as_bytes())?;
    let missing = names
        .iter()
        .find(|name| !certificate.names().any(|found| found == name.as_str()));
    match missing {
        Some(name) => Err(Failure::NameMissing(name.clone())),
        None => Ok(Issued {
            certificate,
            pem: format!("{key}{chain}").into_bytes(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Name;
    use super::*;

    #[test]
    fn a_certificate_for_something_else_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        let check = |name: &str| {
            let names = NameSet::one(Name::parse(name).unwrap());
            issued(&names, &key.serialize_pem(), &chain)
        };
        assert!(check("a.test").is_ok());
        assert!(matches!(check("b.test"), Err(Failure::NameMissing(_))));
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let names = NameSet::one(Name::parse("a.test").unwrap());
        assert!(matches!(
            issued(&names, &other, &chain),
            Err(Failure::Unusable(_))
        ));
    }

    #[tokio::test]
    async fn a_key_of_each_kind_can_be_made() {
        let names = NameSet::one(Name::parse("*.a.test").unwrap());
        for kind in [KeyType::P256, KeyType::P384, KeyType::Rsa2048] {
            let (request, key) = certificate_request(names.clone(), kind).await.unwrap();
            assert!(
                !request.is_empty() && key.contains("PRIVATE KEY"),
                "{kind:?}"
            );
        }
    }
}
