//! The proofs of one order: shown to the authority, and taken away whatever became of the order.

use std::sync::Arc;

use instant_acme::{ChallengeType, KeyAuthorization};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::config::Challenge;
use super::dns::{Record, Solver};
use super::failure::Failure;
use crate::tls::challenges::Challenges;
use crate::tls::{self, certificate::BadPair};

/// What is shown while an order is under way.
pub(super) struct Proofs<'a> {
    challenges: &'a Arc<Challenges>,
    solver: Option<&'a Solver>,
    shown: Vec<Proof>,
}

/// One of them.
enum Proof {
    Page { token: String },
    Certificate { name: String },
    Record(Record),
}

impl<'a> Proofs<'a> {
    pub(super) fn new(challenges: &'a Arc<Challenges>, solver: Option<&'a Solver>) -> Self {
        Self {
            challenges,
            solver,
            shown: Vec::new(),
        }
    }

    /// Shows that `domain` is ours.
    pub(super) async fn show(
        &mut self,
        challenge: Challenge,
        domain: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<(), Failure> {
        match challenge {
            Challenge::Http01 => {
                self.challenges.put_http(token, authorization.as_str());
                let token = token.to_owned();
                self.shown.push(Proof::Page { token });
            }
            Challenge::TlsAlpn01 => {
                let key = alpn_certificate(domain, authorization)?;
                self.challenges.put_alpn(domain, &key);
                let name = domain.to_owned();
                self.shown.push(Proof::Certificate { name });
            }
            Challenge::Dns01 => {
                let record = Record::of(domain, authorization.dns_value());
                // Noted first: a server that does not answer may have made the record.
                self.shown.push(Proof::Record(record.clone()));
                if let Some(solver) = self.solver {
                    solver.present(&record).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes away all that is shown. Says what stays behind, and goes on.
    pub(super) async fn remove(&mut self) {
        for proof in std::mem::take(&mut self.shown) {
            if let (Some(solver), Some(record)) = (self.solver, self.close(&proof))
                && let Err(error) = solver.cleanup(record).await
            {
                let name = &record.name;
                tracing::warn!(%name, %error, "the record of a proof stays behind: {error}");
            }
        }
    }

    /// Takes away what is in this process; gives the record that is not.
    fn close<'p>(&self, proof: &'p Proof) -> Option<&'p Record> {
        match proof {
            Proof::Page { token } => self.challenges.remove_http(token),
            Proof::Certificate { name } => self.challenges.remove_alpn(name),
            Proof::Record(record) => return Some(record),
        }
        None
    }
}

impl Drop for Proofs<'_> {
    fn drop(&mut self) {
        for proof in &self.shown {
            self.close(proof);
        }
    }
}

impl From<Challenge> for ChallengeType {
    fn from(challenge: Challenge) -> Self {
        match challenge {
            Challenge::Dns01 => Self::Dns01,
            Challenge::TlsAlpn01 => Self::TlsAlpn01,
            Challenge::Http01 => Self::Http01,
        }
    }
}

/// A certificate that says nothing but what the authority wants to see (RFC 8737, 3).
fn alpn_certificate(
    domain: &str,
    authorization: &KeyAuthorization,
) -> Result<Arc<CertifiedKey>, Failure> {
    let digest = authorization.digest();
    let mut parameters = rcgen::CertificateParams::new([domain.to_owned()])?;
    parameters.custom_extensions =
        vec![rcgen::CustomExtension::new_acme_identifier(digest.as_ref())];
    let pair = rcgen::KeyPair::generate()?;
    let chain = vec![parameters.self_signed(&pair)?.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = tls::provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| BadPair::UnusableKey(error.to_string()))?;
    // Not checked against each other: the check knows no extension that is critical here, and must be.
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
