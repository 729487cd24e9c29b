//! The handshake before a request: which certificate is shown, and by what.

use std::sync::Arc;

use super::walk::{Walk, key};
use crate::tls::certificate::Certificate;
use crate::wire::{Covers, Secured};

impl Walk<'_> {
    /// As `Identities::find` goes: a certificate for the name, one that is ordered for it, the fallback.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) fn handshake(&mut self) -> Result<Secured, &'static str> {
        let (sources, asked) = (self.sources, self.asked);
        // RFC 6066, 3: a name is never an address, so who goes to one names nobody.
        let address = asked.address().map(|address| address.to_string());
        let sni = match address {
            Some(_) => None,
            None => Some(Arc::from(&*asked.host)),
        };
        let secured = |certificate: Arc<dyn Covers>| Secured {
            sni: sni.clone(),
            certificate,
            version: None,
        };
        let keyring = sources.keyring.as_ref();
        let name = address.as_ref().unwrap_or(&asked.host);
        if let Some(found) = keyring.and_then(|keyring| keyring.find(name)) {
            self.found(&found, "tls");
            return Ok(secured(found));
        }
        // What an authority gives is for names.
        if sni.is_some() && sources.unread {
            let what =
                "unknown here: those that an authority gave are not read; as if one is for it";
            self.step("certificate", what, &["tls.acme".to_owned()]);
            return Ok(secured(Arc::new(Supposed)));
        }
        let fallback = keyring.and_then(|keyring| keyring.fallback());
        if sni.is_some() && sources.on_demand {
            let mut keys = vec![key("tls.acme.on_demand", true)];
            let (what, why) = match &fallback {
                Some(fallback) => {
                    keys.push(key("tls.default", format!("\"{}\"", fallback.label())));
                    (
                        "none yet: one is ordered, or the fallback is shown",
                        ORDERED_OR_FALLBACK,
                    )
                }
                None => ("none yet", ORDERED),
            };
            self.step("certificate", what, &keys);
            return Err(why);
        }
        let Some(fallback) = fallback else {
            let keys = ["tls.certs".to_owned(), "tls.default".to_owned()];
            self.step("certificate", "none", &keys);
            return Err("none: the handshake is refused with unrecognized_name (RFC 6066, 3)");
        };
        self.found(&fallback, "tls.default");
        Ok(secured(fallback))
    }

    fn found(&mut self, certificate: &Certificate, key: &str) {
        let names: Vec<&str> = certificate.names().take(3).collect();
        let what = format!(
            "{}: {}, ends {}",
            certificate.label(),
            names.join(" "),
            certificate.not_after()
        );
        self.step("certificate", &what, &[key.to_owned()]);
    }
}

const ORDERED: &str = "none before a certificate is there, which may be ordered for the handshake";
const ORDERED_OR_FALLBACK: &str = "by whether a certificate is ordered for the handshake: the fallback, which is shown else, is not for this name";

/// A certificate that nobody has looked for.
#[derive(Debug)]
struct Supposed;

impl Covers for Supposed {
    fn covers(&self, _host: &str) -> bool {
        true
    }
}
