//! Sessions of accounts: begun with a password, ended by hand, by age or with the account.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts::{self, Wanted};
use super::error::Error;
use super::fields::Fields;
use super::store::{self, Read, Table, Transaction};
use super::{EVERYTHING, Platform, random};
use crate::credentials::Secret;

/// A session as it is kept, under the digest of its id: who reads the store cannot use it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    user_id: String,
    created: i64,
    expires: i64,
}

/// `Login {email|username, password}` → `{session}`.
///
/// Says the same, after the same work, whether there is no such account or another password.
pub(super) async fn login(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let Some(wanted) = Wanted::by_name(fields)? else {
        return Err(Error::field("email", "is missing, and so is username"));
    };
    let password = Secret::new(fields.required("password")?);
    let account = wanted.find(&platform.store.read()?)?;
    let (user_id, hash) = match account {
        Some((id, account)) => (id, Some(account.password_hash)),
        None => (String::new(), None),
    };
    if !platform.passwords.fits(password, hash.clone()).await? {
        return Err(Error::WrongPassword);
    }
    let now = Timestamp::now().as_second();
    let session = Session {
        user_id,
        created: now,
        expires: now + LIFETIME,
    };
    let id = random::token::<32>();
    let digest = random::digest(&id);
    let write = platform.store.write(move |tx| {
        accounts::unchanged(tx, &session.user_id, hash.as_deref())?;
        tx.put(Table::Sessions, &digest, &session);
        tx.put(Table::UserSessions, &session.beside(&digest), &());
        Ok::<_, Error>(session)
    });
    let session = write.await?;
    Ok(json!({ "session": session.to_json(&id) }))
}

/// `Logout {sessionId}` → `{}`, also where the session had ended already.
pub(super) async fn logout(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let digest = random::digest(&fields.required("sessionId")?);
    let write = platform.store.write(move |tx| {
        if let Some(session) = tx.get::<Session>(Table::Sessions, &digest)? {
            session.end(tx, &digest);
        }
        Ok(())
    });
    write.await.map(|()| json!({}))
}

/// `ReadSession {sessionId}` → `{session}`.
pub(super) fn read(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = fields.required("sessionId")?;
    let view = platform.store.read()?;
    let session: Option<Session> = view.get(Table::Sessions, &random::digest(&id))?;
    let session = session.filter(|session| session.expires > Timestamp::now().as_second());
    let session = session.ok_or(Error::NotFound("session"))?;
    Ok(json!({ "session": session.to_json(&id) }))
}

/// Ends every session of an account.
pub(super) fn end_all(tx: &mut Transaction<'_>, user_id: &str) -> Result<(), store::Error> {
    let prefix = format!("{user_id}/");
    for (key, ()) in tx.scan::<()>(Table::UserSessions, &prefix, EVERYTHING)? {
        tx.delete(Table::Sessions, &key[prefix.len()..]);
        tx.delete(Table::UserSessions, &key);
    }
    Ok(())
}

/// Removes the sessions that are too old to be read.
pub(super) fn sweep(tx: &mut Transaction<'_>) -> Result<(), store::Error> {
    let now = Timestamp::now().as_second();
    for (digest, session) in tx.scan_intact::<Session>(Table::Sessions)? {
        if session.expires <= now {
            session.end(tx, &digest);
        }
    }
    Ok(())
}

impl Session {
    fn end(&self, tx: &mut Transaction<'_>, digest: &str) {
        tx.delete(Table::Sessions, digest);
        tx.delete(Table::UserSessions, &self.beside(digest));
    }

    fn beside(&self, digest: &str) -> String {
        format!("{}/{digest}", self.user_id)
    }

    fn to_json(&self, id: &str) -> Value {
        json!({
            "id": id,
            "userId": self.user_id,
            "created": self.created.to_string(),
            "expires": self.expires.to_string(),
        })
    }
}

/// In seconds: seven days.
const LIFETIME: i64 = 7 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPlatform, check};
    use super::*;

    async fn with_alice() -> TestPlatform {
        let platform = TestPlatform::new();
        let alice = json!({"id": "a", "email": "a@b.example", "username": "alice",
                           "password": "correct horse"});
        assert_eq!(platform.call("user/Create", alice).await.0, 200);
        platform
    }

    async fn login(platform: &TestPlatform) -> Value {
        let body = json!({"username": "alice", "password": "correct horse"});
        let (status, session) = platform.call("user/Login", body).await;
        assert_eq!(status, 200, "{session}");
        session
    }

    #[tokio::test]
    async fn a_session_lives_from_login_to_logout() {
        let platform = with_alice().await;
        let session = login(&platform).await;
        assert_eq!(session["session"]["userId"], "a");
        let seconds = |name: &str| {
            let text = session["session"][name].as_str().unwrap();
            text.parse::<i64>().unwrap()
        };
        assert_eq!(seconds("expires") - seconds("created"), 7 * 24 * 3600);
        let by_id = || json!({"sessionId": session["session"]["id"]});
        check(
            platform.call("user/ReadSession", by_id()),
            200,
            session.clone(),
        )
        .await;
        check(platform.call("user/Logout", by_id()), 200, json!({})).await;
        check(platform.call("user/Logout", by_id()), 200, json!({})).await;
        assert_eq!(platform.call("user/ReadSession", by_id()).await.0, 404);
    }

    #[tokio::test]
    async fn a_failed_login_does_not_tell_whether_there_is_an_account() {
        let platform = with_alice().await;
        let attempt = |email: &str| {
            let body = json!({"email": email, "password": "wrong horse"});
            platform.call("user/Login", body)
        };
        let known = attempt("a@b.example").await;
        assert_eq!(known.0, 401);
        assert_eq!(known, attempt("nobody@b.example").await);
    }

    #[tokio::test]
    async fn sessions_end_with_their_account() {
        let platform = with_alice().await;
        let sessions = [login(&platform).await, login(&platform).await];
        check(
            platform.call("user/Delete", json!({"id": "a"})),
            200,
            json!({}),
        )
        .await;
        for session in sessions {
            let by_id = json!({"session_id": session["session"]["id"]});
            assert_eq!(platform.call("user/ReadSession", by_id).await.0, 404);
        }
    }

    #[tokio::test]
    async fn an_old_session_is_gone_before_it_is_swept() {
        let platform = TestPlatform::new();
        let old = Session {
            user_id: "a".to_owned(),
            created: 0,
            expires: Timestamp::now().as_second(),
        };
        let digest = random::digest("id");
        let put = platform.store().write(move |tx| {
            tx.put(Table::UserSessions, &old.beside(&digest), &());
            tx.put(Table::Sessions, &digest, &old);
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        let read = platform.call("user/ReadSession", json!({"sessionId": "id"}));
        assert_eq!(read.await.0, 404);
        platform.store().write(sweep).await.unwrap();
        let view = platform.store().read().unwrap();
        assert!(
            view.scan::<Session>(Table::Sessions, "", 9)
                .unwrap()
                .is_empty()
        );
        assert!(
            view.scan::<()>(Table::UserSessions, "", 9)
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_damaged_session_stays_and_keeps_no_other_from_being_swept() {
        let platform = TestPlatform::new();
        let put = platform.store().write(|tx| {
            let old = Session {
                user_id: "a".to_owned(),
                created: 0,
                expires: 0,
            };
            tx.put(Table::Sessions, "1 old", &old);
            tx.put(Table::Sessions, "2 damaged", &"no session");
            tx.put(Table::Sessions, "3 old", &old);
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        platform.store().write(sweep).await.unwrap();
        let view = platform.store().read().unwrap();
        assert_eq!(view.keys(Table::Sessions, 9).unwrap(), ["2 damaged"]);
    }
}
