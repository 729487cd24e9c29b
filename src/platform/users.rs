//! `user`: the calls that make, read and change accounts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::accounts::{Account, Wanted, checked_email, folded, unchanged};
use super::error::Error;
use super::fields::Fields;
use super::store::{Read, Table};
use super::{Platform, sessions, verification};
use crate::credentials::Secret;

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
        // Whoever knew the old one may have begun them.
        sessions::end_all(tx, &id)?;
        Ok(())
    });
    write.await.map(|()| json!({}))
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
