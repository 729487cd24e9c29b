//! `user`: the accounts, by id, email and user name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{self, Read, Table, Transaction};
use super::{Platform, sessions, verification};
use crate::credentials::Secret;
use crate::mail;

/// An account as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    email: String,
    username: String,
    pub(super) password_hash: String,
    profile: BTreeMap<String, String>,
    created: i64,
    updated: i64,
    verified: bool,
    verification_date: i64,
}

/// Answers `user.<endpoint>`.
pub(super) async fn call(
    platform: &Platform,
    endpoint: &str,
    fields: &Fields,
) -> Result<Value, Error> {
    match endpoint {
        "Create" => create(platform, fields).await,
        "Read" => read(platform, fields),
        "Update" => update(platform, fields).await,
        "Delete" => delete(platform, fields).await,
        "UpdatePassword" => update_password(platform, fields).await,
        "Login" => sessions::login(platform, fields).await,
        "Logout" => sessions::logout(platform, fields).await,
        "ReadSession" => sessions::read(platform, fields),
        "SendVerificationEmail" => verification::send(platform, fields).await,
        "VerifyEmail" => verification::verify(platform, fields).await,
        "LogoutAll"
        | "SendPasswordResetEmail"
        | "ResetPassword"
        | "List"
        | "SendMagicLink"
        | "VerifyToken" => Err(Error::NotBuilt),
        _ => Err(Error::NoEndpoint),
    }
}

async fn create(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = match fields.filled("id")? {
        Some(id) => checked_id(id)?,
        None => uuid::Uuid::now_v7().to_string(),
    };
    let now = Timestamp::now().as_second();
    let mut account = Account {
        email: checked_email(fields.required("email")?)?,
        username: checked_username(fields.filled("username")?.unwrap_or_default())?,
        password_hash: String::new(),
        profile: fields.texts("profile")?.unwrap_or_default(),
        created: now,
        updated: now,
        verified: false,
        verification_date: 0,
    };
    let password = checked_password(fields, "password")?;
    account.password_hash = platform.passwords.hash(password).await?;
    let write = platform.store.write(move |tx| {
        if tx.get::<Account>(Table::Users, &id)?.is_some() {
            return Err(Error::Taken("id"));
        }
        account.claim_names(tx, &id)?;
        tx.put(Table::Users, &id, &account);
        Ok(json!({ "account": account.to_json(&id) }))
    });
    write.await
}

fn read(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let view = platform.store.read()?;
    let (id, account) = match Wanted::of(fields)? {
        Some(wanted) => wanted.find(&view)?.ok_or(Error::NotFound(KIND))?,
        None => {
            return Err(Error::field(
                "id",
                "is missing, and so are email and username",
            ));
        }
    };
    Ok(json!({ "account": account.to_json(&id) }))
}

async fn update(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = fields.required("id")?;
    let email = fields.filled("email")?.map(checked_email).transpose()?;
    let username = fields.filled("username")?;
    let username = username.map(checked_username).transpose()?;
    let profile = fields.texts("profile")?;
    let write = platform.store.write(move |tx| {
        let known: Option<Account> = tx.get(Table::Users, &id)?;
        let mut account = known.ok_or(Error::NotFound(KIND))?;
        account.release_names(tx);
        if let Some(email) = email {
            if folded(&email) != folded(&account.email) {
                account.verified = false;
                account.verification_date = 0;
            }
            account.email = email;
        }
        account.username = username.unwrap_or(account.username);
        account.profile = profile.unwrap_or(account.profile);
        account.updated = Timestamp::now().as_second();
        account.claim_names(tx, &id)?;
        tx.put(Table::Users, &id, &account);
        Ok(())
    });
    write.await.map(|()| json!({}))
}

async fn delete(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = fields.required("id")?;
    let write = platform.store.write(move |tx| {
        let known: Option<Account> = tx.get(Table::Users, &id)?;
        known.ok_or(Error::NotFound(KIND))?.release_names(tx);
        tx.delete(Table::Users, &id);
        sessions::end_all(tx, &id)?;
        Ok(())
    });
    write.await.map(|()| json!({}))
}

async fn update_password(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = fields.required("userId")?;
    let old = Secret::new(fields.required("oldPassword")?);
    let new = checked_password(fields, "newPassword")?;
    if fields.required("confirmPassword")? != new.expose() {
        return Err(Error::field("confirmPassword", "is not the new password"));
    }
    let account: Option<Account> = platform.store.read()?.get(Table::Users, &id)?;
    let kept = account.map(|account| account.password_hash);
    if !platform.passwords.fits(old, kept.clone()).await? {
        return Err(Error::WrongPassword);
    }
    let hash = platform.passwords.hash(new).await?;
    let write = platform.store.write(move |tx| {
        let mut account = unchanged(tx, &id, kept.as_deref())?;
        account.password_hash = hash;
        account.updated = Timestamp::now().as_second();
        tx.put(Table::Users, &id, &account);
        Ok(())
    });
    write.await.map(|()| json!({}))
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
    fn claim_names(&self, tx: &mut Transaction<'_>, id: &str) -> Result<(), Error> {
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

    fn release_names(&self, tx: &mut Transaction<'_>) {
        tx.delete(Table::Emails, &folded(&self.email));
        if !self.username.is_empty() {
            tx.delete(Table::Usernames, &self.username);
        }
    }

    fn to_json(&self, id: &str) -> Value {
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

pub(super) fn checked_email(email: String) -> Result<String, Error> {
    mail::check_address(&email).map_err(Error::mail)?;
    Ok(email)
}

fn checked_id(id: String) -> Result<String, Error> {
    // No slash: it separates an id from what belongs to it.
    let usable = id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    let why = "must be at most 128 visible ASCII characters without a slash";
    usable.then_some(id).ok_or_else(|| Error::field("id", why))
}

fn checked_username(username: String) -> Result<String, Error> {
    let usable = username.len() <= 256 && !username.contains(char::is_control);
    let why = "must be one line of at most 256 bytes";
    usable
        .then_some(username)
        .ok_or_else(|| Error::field("username", why))
}

fn checked_password(fields: &Fields, name: &'static str) -> Result<Secret, Error> {
    let password = fields.required(name)?;
    if password.chars().count() < 8 || password.len() > 1024 {
        let why = "must have at least 8 characters and at most 1024 bytes";
        return Err(Error::field(name, why));
    }
    Ok(Secret::new(password))
}

const KIND: &str = "user";

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPlatform, check};
    use super::*;

    #[tokio::test]
    async fn an_account_lives_from_create_to_delete() {
        let platform = TestPlatform::new();
        let call = |endpoint: &'static str, body| platform.call(endpoint, body);
        let (status, created) = call(
            "user/Create",
            json!({"email": "Alice@example.com", "username": "alice", "password": "correct horse",
                   "profile": {"city": "Ulm"}}),
        )
        .await;
        assert_eq!(status, 200, "{created}");
        assert!(!created.to_string().contains("argon2"));
        let account = &created["account"];
        assert_eq!(account["verified"], false);
        assert!(account["created"].is_string());
        for by in [
            json!({"id": account["id"]}),
            json!({"email": "alice@EXAMPLE.com"}),
            json!({"username": "alice"}),
        ] {
            check(call("user/Read", by), 200, created.clone()).await;
        }

        let bob = |email: &str, username: &str| json!({"email": email, "username": username, "password": "12345678"});
        let (status, taken) = call("user/Create", bob("ALICE@example.com", "bob")).await;
        assert_eq!(
            (status, &taken["detail"]),
            (409, &json!("this email is taken already"))
        );
        assert_eq!(
            call("user/Create", bob("bob@example.com", "alice")).await.0,
            409
        );
        assert_eq!(
            call("user/Create", bob("bob@example.com", "bob")).await.0,
            200
        );

        let id = &account["id"];
        let taken = json!({"id": id, "username": "bob"});
        assert_eq!(call("user/Update", taken).await.0, 409);
        let moved = json!({"id": id, "email": "a@example.com"});
        check(call("user/Update", moved), 200, json!({})).await;
        let old = json!({"email": "alice@example.com"});
        assert_eq!(call("user/Read", old).await.0, 404);
        let (_, read) = call("user/Read", json!({"email": "a@example.com"})).await;
        assert_eq!(read["account"]["profile"], json!({"city": "Ulm"}));

        check(call("user/Delete", json!({"id": id})), 200, json!({})).await;
        assert_eq!(call("user/Delete", json!({"id": id})).await.0, 404);
        assert_eq!(call("user/Read", json!({"username": "alice"})).await.0, 404);
        assert_eq!(
            call("user/Create", bob("a@example.com", "alice")).await.0,
            200
        );
        assert_eq!(platform.generation(), 0);
    }

    #[tokio::test]
    async fn an_account_that_makes_no_sense_is_refused() {
        let platform = TestPlatform::new();
        let refused = async |body: Value, field: &str| {
            let (status, error) = platform.call("user/Create", body).await;
            assert_eq!(status, 400, "{error}");
            assert!(
                error["detail"].as_str().unwrap().starts_with(field),
                "{error}"
            );
        };
        let password = "12345678";
        refused(json!({"password": password}), "email: ").await;
        refused(
            json!({"email": "a b@c.example", "password": password}),
            "email: ",
        )
        .await;
        refused(
            json!({"email": "a@b.example", "password": "1234567"}),
            "password: ",
        )
        .await;
        refused(json!({"email": "a@b.example"}), "password: ").await;
        refused(
            json!({"id": "a/b", "email": "a@b.example", "password": password}),
            "id: ",
        )
        .await;
        assert_eq!(platform.call("user/Read", json!({})).await.0, 400);
    }

    #[tokio::test]
    async fn a_password_is_changed_by_who_knows_the_old_one() {
        let platform = TestPlatform::new();
        let create = json!({"id": "a", "email": "a@b.example", "password": "old password"});
        assert_eq!(platform.call("user/Create", create).await.0, 200);
        let change = |id: &str, old: &str, confirm: &str| {
            let body = json!({"userId": id, "oldPassword": old, "newPassword": "new password",
                              "confirmPassword": confirm});
            platform.call("user/UpdatePassword", body)
        };
        assert_eq!(change("a", "wrong password", "new password").await.0, 401);
        assert_eq!(
            change("nobody", "old password", "new password").await.0,
            401
        );
        assert_eq!(change("a", "old password", "another").await.0, 400);
        let login = async |password: &str| {
            let body = json!({"email": "a@b.example", "password": password});
            platform.call("user/Login", body).await.0
        };
        assert_eq!(login("old password").await, 200);
        check(change("a", "old password", "new password"), 200, json!({})).await;
        assert_eq!(login("old password").await, 401);
        assert_eq!(login("new password").await, 200);
    }
}
