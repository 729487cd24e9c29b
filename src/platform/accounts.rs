//! Accounts as they are kept and found: by id, email and user name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{self, Read, Table, Transaction};
use crate::mail;

/// An account as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) email: String,
    pub(super) username: String,
    pub(super) password_hash: String,
    pub(super) profile: BTreeMap<String, String>,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) verified: bool,
    pub(super) verification_date: i64,
}

/// The account, if its password is still the one that was checked before the transaction.
pub(super) fn unchanged(
    tx: &Transaction<'_>,
    id: &str,
    checked: Option<&str>,
) -> Result<Account, Error> {
    let account: Option<Account> = tx.get(Table::Users, id)?;
    account
        .filter(|account| Some(account.password_hash.as_str()) == checked)
        .ok_or(Error::WrongPassword)
}

/// Marks the account with this email, if there is one, as verified.
pub(super) fn verified(tx: &mut Transaction<'_>, email: &str) -> Result<(), store::Error> {
    let Some((id, mut account)) = Wanted::Email(email.to_owned()).find(tx)? else {
        return Ok(());
    };
    account.verified = true;
    account.verification_date = Timestamp::now().as_second();
    tx.put(Table::Users, &id, &account);
    Ok(())
}

/// Which account a call is about.
pub(super) enum Wanted {
    Id(String),
    Email(String),
    Username(String),
}

impl Wanted {
    /// The first of id, email and user name that a call names.
    pub(super) fn of(fields: &Fields) -> Result<Option<Self>, Error> {
        Ok(match fields.filled("id")? {
            Some(id) => Some(Self::Id(id)),
            None => Self::by_name(fields)?,
        })
    }

    /// The first of email and user name that a call names.
    pub(super) fn by_name(fields: &Fields) -> Result<Option<Self>, Error> {
        Ok(match fields.filled("email")? {
            Some(email) => Some(Self::Email(email)),
            None => fields.filled("username")?.map(Self::Username),
        })
    }

    pub(super) fn find(self, store: &impl Read) -> Result<Option<(String, Account)>, store::Error> {
        let id = match self {
            Self::Id(id) => Some(id),
            Self::Email(email) => store.get(Table::Emails, &folded(&email))?,
            Self::Username(username) => store.get(Table::Usernames, &username)?,
        };
        let Some(id) = id else { return Ok(None) };
        let account = store.get(Table::Users, &id)?;
        Ok(account.map(|account| (id, account)))
    }
}

impl Account {
    /// Makes the account known by its email and user name, which nobody else may have.
    pub(super) fn claim_names(&self, tx: &mut Transaction<'_>, id: &str) -> Result<(), Error> {
        let email = folded(&self.email);
        if tx.get::<String>(Table::Emails, &email)?.is_some() {
            return Err(Error::Taken("email"));
        }
        tx.put(Table::Emails, &email, &id);
        if self.username.is_empty() {
            return Ok(());
        }
        if tx
            .get::<String>(Table::Usernames, &self.username)?
            .is_some()
        {
            return Err(Error::Taken("username"));
        }
        tx.put(Table::Usernames, &self.username, &id);
        Ok(())
    }

    /// The opposite of [`Account::claim_names`].
    pub(super) fn release_names(&self, tx: &mut Transaction<'_>) {
        tx.delete(Table::Emails, &folded(&self.email));
        if !self.username.is_empty() {
            tx.delete(Table::Usernames, &self.username);
        }
    }

    /// As the API gives it: without the password.
    pub(super) fn to_json(&self, id: &str) -> Value {
        json!({
            "id": id,
            "email": self.email,
            "username": self.username,
            "profile": self.profile,
            "created": self.created.to_string(),
            "updated": self.updated.to_string(),
            "verified": self.verified,
            "verification_date": self.verification_date.to_string(),
        })
    }
}

/// Two spellings of one mailbox, as everybody but the standard sees it.
pub(super) fn folded(email: &str) -> String {
    email.to_lowercase()
}

/// An email address that mail can be sent to.
pub(super) fn checked_email(email: String) -> Result<String, Error> {
    mail::check_address(&email).map_err(Error::mail)?;
    Ok(email)
}
