//! Custom domains: which app claims which, what proves a claim, and who has proven one.
//!
//! A claim is a record under `<domain>/<app>`, so that nobody can keep a domain from its owner by
//! claiming it first: the first app to prove its claim has the domain, until it lets go of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{self, Read, Table, Transaction, View, Watch};
use super::{EVERYTHING, Platform, random};
use crate::domains::{Domains, PROOF_PATH, Standing};
use crate::hosts::{Hosts, PublicScheme};
use crate::id::WorkloadId;
mod name;
mod proofs;

pub(super) use name::DomainName;
pub(super) use proofs::Proofs;

/// The claim of an app to a domain, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claim {
    /// What proves it, once it is published. Of this app alone.
    token: String,
    /// When somebody asked for it last: the proof is looked for from then on.
    asked: Timestamp,
    /// When the proof was found.
    proven: Option<Timestamp>,
}

/// The custom domains that a call names, if it does.
pub(super) fn named(fields: &Fields, own: &Hosts) -> Result<Option<Vec<DomainName>>, Error> {
    let wrong = |why: String| Error::field(FIELD, why);
    let Some(texts) = fields.list(FIELD)? else {
        return Ok(None);
    };
    if texts.len() > MOST_OF_AN_APP {
        return Err(wrong(format!("an app has at most {MOST_OF_AN_APP}")));
    }
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        let name = DomainName::parse(&text, own).map_err(|error| {
            let shown: String = text.chars().take(SHOWN).collect();
            wrong(format!("`{shown}` {error}"))
        })?;
        if names.contains(&name) {
            return Err(wrong(format!("`{}` is there twice", name.as_str())));
        }
        names.push(name);
    }
    Ok(Some(names))
}

/// Makes the claims of `app` those to `after`: what is new gets a token, what is gone is free at once.
pub(super) fn change(
    tx: &mut Transaction<'_>,
    app: &WorkloadId,
    before: &[DomainName],
    after: &[DomainName],
) -> Result<(), Error> {
    release(tx, app, before.iter().filter(|name| !after.contains(name)));
    for name in after {
        let own = key(name.as_str(), app);
        let mut claims = claims(tx, name.as_str())?;
        let known = claims.remove(&own);
        if claims.values().any(Claim::is_proven) {
            return Err(Error::DomainTaken(name.as_str().to_owned()));
        }
        let claim = match known {
            Some(claim) if claim.is_proven() => continue,
            known => Claim {
                token: known.map_or_else(random::token::<24>, |claim| claim.token),
                asked: Timestamp::now(),
                proven: None,
            },
        };
        tx.put(Table::Domains, &own, &claim);
    }
    Ok(())
}

/// Frees what `app` claims of `names`, at once.
pub(super) fn release<'n>(
    tx: &mut Transaction<'_>,
    app: &WorkloadId,
    names: impl IntoIterator<Item = &'n DomainName>,
) {
    for name in names {
        tx.delete(Table::Domains, &key(name.as_str(), app));
    }
}

/// Looks soon for what an app, as [`to_json`] gave it, has not proven yet.
pub(super) fn hurry(platform: &Platform, service: &Value) {
    let app = service["id"].as_str().unwrap_or_default();
    let proofs = service["domain_proofs"].as_array();
    let pending = proofs
        .into_iter()
        .flatten()
        .filter(|proof| proof["verified"] == false);
    let key = |proof: &Value| Some(format!("{}/{app}", proof["domain"].as_str()?));
    platform.proofs.hurry(pending.filter_map(key));
}

/// Notes that the claim under `own`, with this token, is proven; whether it stands now.
fn prove(tx: &mut Transaction<'_>, own: &str, token: &str) -> Result<bool, store::Error> {
    let Some((domain, _)) = own.split_once('/') else {
        return Ok(false);
    };
    let mut claims = claims(tx, domain)?;
    let was_faster = claims.values().any(Claim::is_proven);
    match claims.remove(own) {
        Some(mut claim) if claim.token == token && !was_faster => {
            claim.proven = Some(Timestamp::now());
            tx.put(Table::Domains, own, &claim);
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// What is to be published for each of the domains of `app`, and how far it has got.
pub(super) fn to_json(
    platform: &Platform,
    read: &impl Read,
    app: &WorkloadId,
    names: &[DomainName],
) -> Result<Vec<Value>, store::Error> {
    let mut proofs = Vec::with_capacity(names.len());
    for name in names.iter().map(DomainName::as_str) {
        let mut claims = claims(read, name)?;
        let Some(claim) = claims.remove(&key(name, app)) else {
            continue;
        };
        let is_taken = claims.values().any(Claim::is_proven);
        let token = &claim.token;
        let authority = match platform.proofs.port() {
            80 => name.to_owned(),
            port => format!("{name}:{port}"),
        };
        proofs.push(json!({
            "domain": name,
            "verified": claim.is_proven(),
            "state": claim.state(is_taken, Timestamp::now()),
            "txt_name": txt_name(name),
            "txt_value": txt_value(token),
            "http_url": format!("http://{authority}{PROOF_PATH}{token}"),
            "http_body": token,
        }));
    }
    Ok(proofs)
}

/// Lets `domains` follow the store.
pub(super) fn follow(domains: &Domains) -> Watch {
    let domains = domains.clone();
    Box::new(move |view, keys| refresh(&domains, view, keys))
}

/// Reads all there are, at the start.
pub(super) fn load(domains: &Domains, view: &View<'_>) -> Result<(), store::Error> {
    let keys = view.keys(Table::Domains, EVERYTHING)?;
    refresh(domains, view, &keys.into_iter().collect())
}

fn refresh(
    domains: &Domains,
    view: &View<'_>,
    keys: &BTreeSet<String>,
) -> Result<(), store::Error> {
    let names: BTreeSet<&str> = keys
        .iter()
        .filter_map(|key| key.split('/').next())
        .collect();
    let standing = |name: &&str| Ok(((*name).into(), standing(view, name)?));
    let changed: Vec<_> = names
        .iter()
        .map(standing)
        .collect::<Result<_, store::Error>>()?;
    domains.apply(changed);
    Ok(())
}

/// Whose a domain is, or whose it may become by leading here. Several who claim it have all to publish
/// their own: that it leads here speaks for none of them.
fn standing(view: &View<'_>, domain: &str) -> Result<Option<Standing>, store::Error> {
    let (mut known, mut damaged) = (Vec::new(), false);
    for key in view.keys_under(Table::Domains, &prefix(domain), EVERYTHING)? {
        match view.get::<Claim>(Table::Domains, &key) {
            Ok(claim) => known.extend(claim.map(|claim| (key, claim))),
            Err(error @ store::Error::Damaged { .. }) => {
                damaged = true;
                tracing::error!(%error, "a custom domain is not served: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    if let Some((key, _)) = known.iter().find(|(_, claim)| claim.is_proven()) {
        let app = key.split_once('/').map(|(_, app)| WorkloadId::parse(app));
        return Ok(app.and_then(Result::ok).map(Standing::Proven));
    }
    match known.pop() {
        Some((_, claim)) if known.is_empty() && !damaged => {
            Ok(Some(Standing::Awaited(claim.token.into())))
        }
        Some(_) | None => Ok(None),
    }
}

/// Every claim to `domain`, by key.
fn claims(read: &impl Read, domain: &str) -> Result<BTreeMap<String, Claim>, store::Error> {
    let claims = read.scan(Table::Domains, &prefix(domain), EVERYTHING)?;
    Ok(claims.into_iter().collect())
}

impl Claim {
    fn is_proven(&self) -> bool {
        self.proven.is_some()
    }

    /// How long it has been looked for already.
    fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.asked)
    }

    fn state(&self, is_taken: bool, now: Timestamp) -> &'static str {
        if self.is_proven() {
            "verified"
        } else if is_taken {
            "taken"
        } else if proofs::pause(self.age(now)).is_some() {
            "pending"
        } else {
            "expired"
        }
    }
}

/// The port of a proof over HTTP: that of public links where these are HTTP, else its own.
pub(super) fn proof_port(public: PublicScheme) -> u16 {
    match public.secure {
        true => 80,
        false => public.port.unwrap_or(80),
    }
}

fn prefix(domain: &str) -> String {
    format!("{domain}/")
}

fn key(domain: &str, app: &WorkloadId) -> String {
    format!("{domain}/{app}")
}

fn txt_name(domain: &str) -> String {
    format!("_m3o-challenge.{domain}")
}

fn txt_value(token: &str) -> String {
    format!("m3o-domain-verification={token}")
}

const FIELD: &str = "custom_domains";

/// Custom domains of one app. More would be asked about for days, each by whoever may make an app.
const MOST_OF_AN_APP: usize = 20;

/// Characters of a bad name that are said back.
const SHOWN: usize = 80;

#[cfg(test)]
mod tests;
