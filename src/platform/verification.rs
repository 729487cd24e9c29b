//! Verification of email addresses: a link by mail, whose token is good once and for a day.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accounts;
use super::error::Error;
use super::fields::Fields;
use super::mailing;
use super::store::{self, Read, Table, Transaction};
use super::{Platform, Rules, random};
use crate::destination::Destination;
use crate::mail::Message;

/// A token as it is kept, under its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    email: String,
    expires: i64,
}

/// `SendVerificationEmail` → `{}`, once the mail is sure to leave.
pub(super) async fn send(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    platform.mail.configured()?;
    let email = accounts::checked_email(fields.required("email")?)?;
    let text = fields.required("textContent")?;
    if !text.contains(PLACEHOLDER) {
        return Err(Error::field(
            "textContent",
            format!("must contain {PLACEHOLDER} where the link is to stand"),
        ));
    }
    // Each is replaced by the link: many of them, or a long link, would make much out of little.
    if text.len() > MAX_TEXT || text.matches(PLACEHOLDER).count() > MAX_LINKS {
        let why = format!("must have at most {MAX_TEXT} bytes and {MAX_LINKS} links");
        return Err(Error::field("textContent", why));
    }
    let token = random::token::<32>();
    let ways = platform.ways();
    let link = ways
        .links
        .verification(&query(fields, &ways.rules, &token)?);
    drop(ways);
    if link.len() > MAX_LINK {
        let why = format!("makes a link of more than {MAX_LINK} bytes");
        return Err(Error::field("redirectUrl", why));
    }
    let message = Message {
        to: email.clone(),
        from_name: fields.text("fromName")?.unwrap_or_default(),
        subject: fields.required("subject")?,
        text: text.replace(PLACEHOLDER, &link),
    };
    message.check().map_err(Error::mail)?;

    let kept = Token {
        email,
        expires: Timestamp::now().as_second() + LIFETIME,
    };
    let digest = random::digest(&token);
    let queued = platform.mail.to_queue(&message);
    // Both or neither: a mail whose token was lost would be a dead link.
    let write = platform.store.write(move |tx| {
        tx.put(Table::Tokens, &digest, &kept);
        if let Some(message) = queued {
            mailing::enqueue(tx, message);
        }
        Ok::<_, Error>(())
    });
    write.await?;
    platform.mail.written(message);
    Ok(json!({}))
}

/// `VerifyEmail {token}` → `{}`; the token is spent.
pub(super) async fn verify(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let digest = random::digest(&fields.required("token")?);
    let write = platform.store.write(move |tx| {
        let token: Option<Token> = tx.get(Table::Tokens, &digest)?;
        let token = token.filter(|token| token.expires > Timestamp::now().as_second());
        let token = token.ok_or(Error::BadToken)?;
        tx.delete(Table::Tokens, &digest);
        accounts::verified(tx, &token.email)?;
        Ok(())
    });
    write.await.map(|()| json!({}))
}

/// Removes the tokens that are too old to be used.
pub(super) fn sweep(tx: &mut Transaction<'_>) -> Result<(), store::Error> {
    let now = Timestamp::now().as_second();
    for (digest, token) in tx.scan_intact::<Token>(Table::Tokens)? {
        if token.expires <= now {
            tx.delete(Table::Tokens, &digest);
        }
    }
    Ok(())
}

/// The query of a verification link.
fn query(fields: &Fields, rules: &Rules, token: &str) -> Result<String, Error> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("token", token);
    for name in ["redirectUrl", "failureRedirectUrl"] {
        if let Some(url) = fields.filled(name)? {
            let url =
                Destination::encode(&url).map_err(|error| Error::field(name, error.to_string()))?;
            // The link would be refused as it is opened.
            if !url.stays_on(&rules.redirect_hosts) {
                return Err(Error::field(name, "redirects to this host are not allowed"));
            }
            query.append_pair(name, url.as_str());
        }
    }
    Ok(query.finish())
}

/// Stands where the link is to stand, as in M3O.
const PLACEHOLDER: &str = "$micro_verification_link";

/// In seconds: a day.
const LIFETIME: i64 = 24 * 3600;

/// Bytes of a mail's text.
const MAX_TEXT: usize = 256 << 10;

/// Places of one mail where the link stands.
const MAX_LINKS: usize = 8;

/// Bytes of a link: what mail programs and browsers all take.
const MAX_LINK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPlatform, check};
    use super::*;

    fn letter() -> Value {
        json!({
            "email": "Alice@example.com",
            "subject": "Hello",
            "textContent": "Click here: $micro_verification_link\nBye",
            "fromName": "Blog",
            "redirectUrl": "https://blog.example/ok?a=b&c=d",
            "failureRedirectUrl": "https://blog.example/no",
        })
    }

    /// The query of the link in the newest mail.
    fn newest(platform: &TestPlatform) -> Vec<(String, String)> {
        let mail = platform.mailbox().messages()[0].message.clone();
        assert_eq!(mail.to, "Alice@example.com");
        let (_, rest) = mail.text.split_once("Click here: ").unwrap();
        let (link, bye) = rest.split_once('\n').unwrap();
        assert_eq!(bye, "Bye");
        let query = link.strip_prefix("https://user.m3o.com/?").unwrap();
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    #[tokio::test]
    async fn a_link_by_mail_verifies_once() {
        let platform = TestPlatform::new();
        let alice = json!({"id": "a", "email": "alice@example.com", "password": "12345678"});
        assert_eq!(platform.call("user/Create", alice).await.0, 200);
        let send = || platform.call("user/SendVerificationEmail", letter());
        check(send(), 200, json!({})).await;
        let pairs = newest(&platform);
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["token", "redirectUrl", "failureRedirectUrl"]);
        assert_eq!(pairs[1].1, "https://blog.example/ok?a=b&c=d");

        let verify = || platform.call("user/VerifyEmail", json!({"token": pairs[0].1}));
        check(verify(), 200, json!({})).await;
        let (status, error) = verify().await;
        assert_eq!((status, &error["id"]), (400, &json!("user.VerifyEmail")));
        let (_, read) = platform.call("user/Read", json!({"id": "a"})).await;
        assert_eq!(read["account"]["verified"], true);
        assert_ne!(read["account"]["verification_date"], "0");
    }

    #[tokio::test]
    async fn of_many_at_once_one_spends_the_token() {
        let platform = TestPlatform::new();
        let sent = platform.call("user/SendVerificationEmail", letter());
        check(sent, 200, json!({})).await;
        let token = newest(&platform)[0].1.clone();
        let verify = || platform.call("user/VerifyEmail", json!({"token": token}));
        let all = futures_util::future::join_all((0..20).map(|_| verify())).await;
        assert_eq!(all.iter().filter(|(status, _)| *status == 200).count(), 1);
        assert_eq!(all.iter().filter(|(status, _)| *status == 400).count(), 19);
    }

    #[tokio::test]
    async fn an_old_token_is_refused_and_swept() {
        let platform = TestPlatform::new();
        let put = platform.store().write(|tx| {
            let token = Token {
                email: "a@b.example".to_owned(),
                expires: Timestamp::now().as_second(),
            };
            tx.put(Table::Tokens, &random::digest("old"), &token);
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        let verify = platform.call("user/VerifyEmail", json!({"token": "old"}));
        assert_eq!(verify.await.0, 400);
        platform.store().write(sweep).await.unwrap();
        let view = platform.store().read().unwrap();
        assert!(view.scan::<Token>(Table::Tokens, "", 9).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_damaged_token_stays_and_keeps_no_other_from_being_swept() {
        let platform = TestPlatform::new();
        let put = platform.store().write(|tx| {
            let old = Token {
                email: "a@b.example".to_owned(),
                expires: 0,
            };
            tx.put(Table::Tokens, "1 old", &old);
            tx.put(Table::Tokens, "2 damaged", &"no token");
            tx.put(Table::Tokens, "3 old", &old);
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        platform.store().write(sweep).await.unwrap();
        let view = platform.store().read().unwrap();
        assert_eq!(view.keys(Table::Tokens, 9).unwrap(), ["2 damaged"]);
    }

    #[tokio::test]
    async fn a_letter_that_makes_no_sense_is_refused() {
        let platform = TestPlatform::new();
        for (field, value) in [
            ("email", "alice"),
            ("email", "a@b.example\r\nBcc: c@d.example"),
            ("subject", "a\r\nBcc: c@d.example"),
            ("fromName", "a\nb"),
            ("textContent", "no link"),
            ("redirectUrl", "javascript:alert(1)"),
            ("failureRedirectUrl", "//evil.example"),
        ] {
            let mut letter = letter();
            letter[field] = value.into();
            let (status, error) = platform.call("user/SendVerificationEmail", letter).await;
            assert_eq!(status, 400, "{field}");
            assert!(error["detail"].as_str().unwrap().contains(field), "{error}");
        }
        assert!(platform.mailbox().messages().is_empty());
    }

    #[tokio::test]
    async fn a_link_leads_to_no_host_that_it_would_not_redirect_to() {
        let platform = TestPlatform::with_rules(Rules {
            redirect_hosts: vec!["blog.example".parse().unwrap()],
            ..Rules::default()
        });
        let sent = platform.call("user/SendVerificationEmail", letter());
        check(sent, 200, json!({})).await;
        assert_eq!(platform.mailbox().messages().len(), 1);
        for field in ["redirectUrl", "failureRedirectUrl"] {
            let mut letter = letter();
            letter[field] = "https://other.example/".into();
            let (status, error) = platform.call("user/SendVerificationEmail", letter).await;
            let detail = json!(format!("{field}: redirects to this host are not allowed"));
            assert_eq!((status, &error["detail"]), (400, &detail));
        }
        assert_eq!(platform.mailbox().messages().len(), 1);
    }

    #[tokio::test]
    async fn without_a_way_out_no_mail_is_taken() {
        let platform = TestPlatform::without_mail();
        let (status, error) = platform.call("user/SendVerificationEmail", letter()).await;
        assert_eq!(
            (status, &error["detail"]),
            (501, &json!("no mail is configured"))
        );
    }
}
