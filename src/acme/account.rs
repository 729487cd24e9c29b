//! The account at the authority: registered once, kept in the folder, opened when first needed.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::client::Client;
use super::failure::Failure;
use super::folder::Folder;
use crate::credentials::Secret;

/// Who we are at one authority.
pub(super) struct Registration {
    folder: Arc<Folder>,
    client: Client,
    directory: String,
    contact: Vec<String>,
    binding: Option<Binding>,
    account: Mutex<Option<Account>>,
}

/// The account that we have with the operator of the authority already (RFC 8555, 7.3.4).
pub(super) struct Binding {
    kid: String,
    key: Vec<u8>,
}

/// What is kept of an account.
#[derive(Serialize, Deserialize)]
struct Kept {
    credentials: AccountCredentials,
    /// The addresses that the authority knows.
    contact: Vec<String>,
}

/// Its file.
const FILE: &str = "account.json";

/// The file of its key, which is there before the account is: whoever registers twice with one key
/// gets the same account (RFC 8555, 7.3.1).
const KEY_FILE: &str = "account.der";

/// The problem of an authority that has forgotten us.
const FORGOTTEN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

impl Binding {
    /// A binding with a key in base64url; `None` where it is none.
    pub(super) fn new(kid: &str, key: &Secret) -> Option<Self> {
        let key = key.expose();
        let key = BASE64_URL_SAFE_NO_PAD
            .decode(key)
            .or_else(|_| BASE64_URL_SAFE.decode(key));
        let kid = kid.to_owned();
        key.ok().map(|key| Self { kid, key })
    }
}

impl Registration {
    pub(super) fn new(
        folder: Arc<Folder>,
        client: Client,
        directory: &str,
        contact: &[String],
        binding: Option<Binding>,
    ) -> Self {
        let contact = contact.iter().map(|address| format!("mailto:{address}"));
        Self {
            folder,
            client,
            directory: directory.to_owned(),
            contact: contact.collect(),
            binding,
            account: Mutex::new(None),
        }
    }

    /// The account, registered where there is none.
    ///
    /// # Errors
    /// When the authority cannot be asked or refuses.
    pub(super) async fn account(&self) -> Result<Account, Failure> {
        let mut open = self.account.lock().await;
        if let Some(account) = &*open {
            return Ok(account.clone());
        }
        let account = self.open().await?;
        *open = Some(account.clone());
        Ok(account)
    }

    /// Registers anew next time, if that is what a failure asks for.
    pub(super) async fn learn(&self, failure: &Failure) {
        if failure.problem() != Some(FORGOTTEN) {
            return;
        }
        let mut open = self.account.lock().await;
        *open = None;
        if let Err(error) = self.folder.remove(FILE) {
            tracing::warn!(%error, "the file of a forgotten ACME account cannot be removed");
        }
        tracing::warn!(
            "the authority does not know our ACME account any more: it is registered anew"
        );
    }

    async fn open(&self) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        if let Some(kept) = self.folder.read(FILE)? {
            // Read twice: the library takes the credentials and gives them to nobody.
            let read = || serde_json::from_slice::<Kept>(&kept).map_err(|_| Failure::BadAccount);
            let account = builder.from_credentials(read()?.credentials).await?;
            self.tell_contact(&account, read()?).await;
            return Ok(account);
        }
        let (account, kept) = match &self.binding {
            Some(binding) => {
                let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
                let wanted = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let key = ExternalAccountKey::new(binding.kid.clone(), &binding.key);
                let directory = self.directory.clone();
                let (account, credentials) = builder.create(&wanted, directory, Some(&key)).await?;
                let contact = self.contact.clone();
                (
                    account,
                    Kept {
                        credentials,
                        contact,
                    },
                )
            }
            None => {
                let key = self.key()?;
                let directory = self.directory.clone();
                let (account, credentials) = builder.create_from_key(key, directory).await?;
                let contact = Vec::new();
                (
                    account,
                    Kept {
                        credentials,
                        contact,
                    },
                )
            }
        };
        self.keep(&kept)?;
        tracing::info!(account = account.id(), "registered an ACME account");
        self.tell_contact(&account, kept).await;
        Ok(account)
    }

    /// The key of an account to be, the same one until there is an account.
    fn key(&self) -> Result<(Key, PrivateKeyDer<'static>), Failure> {
        let der = match self.folder.read(KEY_FILE)? {
            Some(der) => PrivatePkcs8KeyDer::from(der),
            None => {
                let (_, der) = Key::generate_pkcs8()?;
                self.folder.write(KEY_FILE, der.secret_pkcs8_der())?;
                der
            }
        };
        let key = Key::from_pkcs8_der(der.clone_key()).map_err(|_| Failure::BadAccount)?;
        Ok((key, PrivateKeyDer::Pkcs8(der)))
    }

    /// Tells the authority whom it may write to, where it knows otherwise. Certificates do not depend
    /// on that.
    async fn tell_contact(&self, account: &Account, mut kept: Kept) {
        if kept.contact == self.contact {
            return;
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let told = account
            .update_contacts(&contact)
            .await
            .map_err(Failure::from);
        kept.contact.clone_from(&self.contact);
        if let Err(failure) = told.and_then(|()| self.keep(&kept)) {
            tracing::warn!(%failure, "the authority does not take tls.acme.contact");
        }
    }

    fn keep(&self, kept: &Kept) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(kept).map_err(|_| Failure::BadAccount)?;
        Ok(self.folder.write(FILE, &bytes)?)
    }
}
