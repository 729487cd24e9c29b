//! `url`: the short links, where each of them leads, and how often it was followed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use super::store::{Read, Table};
use super::{EVERYTHING, Platform, random};
use crate::destination::Destination;
use crate::id::LinkId;

/// A short link as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Link {
    destination: String,
    created: Timestamp,
    /// Without those that are not written yet.
    pub(super) hits: u64,
}

/// Answers `url.<endpoint>`.
pub(super) async fn call(
    platform: &Platform,
    endpoint: &str,
    fields: &Fields,
) -> Result<Value, Error> {
    match endpoint {
        "Create" => {
            let (id, link) = create(platform, fields, chosen_id(fields)?).await?;
            Ok(json!({ "url": link.to_json(platform, &id) }))
        }
        "Shorten" => {
            let (id, _) = create(platform, fields, None).await?;
            Ok(json!({ "shortURL": platform.ways().links.link(&id) }))
        }
        "List" => list(platform, fields).await,
        "Resolve" => resolve(platform, fields),
        "Update" => update(platform, fields).await,
        "Delete" => delete(platform, fields).await,
        _ => Err(Error::NoEndpoint),
    }
}

async fn create(
    platform: &Platform,
    fields: &Fields,
    chosen: Option<LinkId>,
) -> Result<(LinkId, Link), Error> {
    let link = Link::to(destination(fields)?);
    let write = platform.store.write(move |tx| {
        let taken = |id: &LinkId| {
            let known: Option<Link> = tx.get(Table::Links, id.as_str())?;
            Ok::<_, Error>(known.is_some())
        };
        let id = match chosen {
            Some(id) if taken(&id)? => return Err(Error::Taken("id")),
            Some(id) => id,
            None => {
                let mut id = random_id();
                while taken(&id)? {
                    id = random_id();
                }
                id
            }
        };
        tx.put(Table::Links, id.as_str(), &link);
        Ok((id, link))
    });
    write.await
}

async fn list(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let only = fields.filled("shortURL")?;
    if let Err(error) = platform.hits.flush(&platform.store).await {
        // They are still counted, and shown below.
        tracing::warn!(%error, "hits of short links wait: {error}");
    }
    let view = platform.store.read()?;
    let links: Vec<(String, Link)> = match only {
        None => view.scan(Table::Links, "", EVERYTHING)?,
        Some(short_url) => match platform.ways().links.link_id(&short_url) {
            Some(id) => view
                .get(Table::Links, id.as_str())?
                .map(|link| (id.as_str().to_owned(), link))
                .into_iter()
                .collect(),
            None => Vec::new(),
        },
    };
    let pairs: Vec<Value> = links
        .into_iter()
        .filter_map(|(id, link)| Some(link.to_json(platform, &LinkId::parse(&id).ok()?)))
        .collect();
    Ok(json!({ "urlPairs": pairs }))
}

fn resolve(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = known_id(platform, fields)?;
    let destination = destination_of(platform, &id)?;
    platform.hits.count(&platform.hits.of(&id));
    Ok(json!({ "destinationURL": destination }))
}

/// Where a link leads, as it is kept.
pub(super) fn destination_of(platform: &Platform, id: &LinkId) -> Result<String, Error> {
    let link: Option<Link> = platform.store.read()?.get(Table::Links, id.as_str())?;
    link.map(|link| link.destination)
        .ok_or(Error::NotFound(KIND))
}

async fn update(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = known_id(platform, fields)?;
    let destination = destination(fields)?;
    let write = platform.store.write(move |tx| {
        let known: Option<Link> = tx.get(Table::Links, id.as_str())?;
        let mut link = known.ok_or(Error::NotFound(KIND))?;
        link.destination = destination;
        tx.put(Table::Links, id.as_str(), &link);
        Ok(())
    });
    write.await.map(|()| json!({}))
}

async fn delete(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let id = known_id(platform, fields)?;
    let key = id.as_str().to_owned();
    let write = platform.store.write(move |tx| {
        let known: Option<Link> = tx.get(Table::Links, &key)?;
        known.ok_or(Error::NotFound(KIND))?;
        tx.delete(Table::Links, &key);
        Ok::<_, Error>(())
    });
    write.await?;
    platform.hits.forget(&id);
    Ok(json!({}))
}

fn destination(fields: &Fields) -> Result<String, Error> {
    let destination = Destination::encode(&fields.required("destinationURL")?)
        .map_err(|error| Error::field("destinationURL", error.to_string()))?;
    Ok(destination.as_str().to_owned())
}

fn chosen_id(fields: &Fields) -> Result<Option<LinkId>, Error> {
    let parse = |id: String| LinkId::parse(&id);
    let id = fields.filled("id")?.map(parse).transpose();
    id.map_err(|error| Error::field("id", error.to_string()))
}

/// The link that a call is about, by its id or by its whole URL.
fn known_id(platform: &Platform, fields: &Fields) -> Result<LinkId, Error> {
    if let Some(id) = fields.filled("id")? {
        return LinkId::parse(&id).map_err(|_| Error::NotFound(KIND));
    }
    let Some(short_url) = fields.filled("shortURL")? else {
        return Err(Error::field("id", "is missing, and so is shortURL"));
    };
    id_in(platform, &short_url)
}

/// The link that a whole URL is one of.
pub(super) fn id_in(platform: &Platform, short_url: &str) -> Result<LinkId, Error> {
    let id = platform.ways().links.link_id(short_url);
    id.ok_or(Error::NotFound(KIND))
}

fn random_id() -> LinkId {
    LinkId::parse(&random::token::<6>()).expect("eight characters of its alphabet")
}

impl Link {
    /// A new one.
    pub(super) fn to(destination: String) -> Self {
        Self {
            destination,
            created: Timestamp::now(),
            hits: 0,
        }
    }

    fn to_json(&self, platform: &Platform, id: &LinkId) -> Value {
        let hits = self.hits.saturating_add(platform.hits.pending(id));
        json!({
            "id": id.as_str(),
            "shortURL": platform.ways().links.link(id),
            "destinationURL": self.destination,
            "created": self.created.to_string(),
            "hitCount": hits.to_string(),
        })
    }
}

const KIND: &str = "short link";

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPlatform, check};
    use super::*;
    use crate::upstream::{Hit, LocalApi, ShortLink};

    #[tokio::test]
    async fn a_short_link_lives_from_create_to_delete() {
        let platform = TestPlatform::new();
        let call = |endpoint: &'static str, body| platform.call(endpoint, body);
        let (status, created) = call(
            "url/Create",
            json!({"id": "Ab-1", "destinationURL": "https://example.com/ä"}),
        )
        .await;
        assert_eq!(status, 200, "{created}");
        let pair = &created["url"];
        assert_eq!(pair["shortURL"], "https://m3o.one/u/Ab-1");
        assert_eq!(pair["destinationURL"], "https://example.com/%C3%A4");
        assert_eq!(pair["hitCount"], "0");

        let again = json!({"id": "Ab-1", "destination_url": "https://example.com/"});
        assert_eq!(call("url/Create", again).await.0, 409);
        let found = || json!({"destinationURL": "https://example.com/%C3%A4"});
        check(call("url/Resolve", json!({"id": "Ab-1"})), 200, found()).await;
        for form in [
            "https://m3o.one/Ab-1",
            "http://localhost:8080/u/Ab-1",
            "https://any.example/url/Ab-1",
        ] {
            check(call("url/Resolve", json!({"shortURL": form})), 200, found()).await;
        }
        let moved = json!({"id": "Ab-1", "destinationURL": "https://b.example/"});
        check(call("url/Update", moved), 200, json!({})).await;
        let now = json!({"destinationURL": "https://b.example/"});
        check(call("url/Resolve", json!({"id": "Ab-1"})), 200, now).await;
        let by_url = json!({"shortURL": "https://m3o.one/u/Ab-1"});
        check(call("url/Delete", by_url.clone()), 200, json!({})).await;
        for endpoint in ["url/Resolve", "url/Delete"] {
            assert_eq!(call(endpoint, by_url.clone()).await.0, 404);
        }
        check(call("url/List", json!({})), 200, json!({"urlPairs": []})).await;
        assert_eq!(
            platform.generation(),
            0,
            "links are not resolved to backends"
        );
    }

    #[tokio::test]
    async fn hits_are_counted_unless_the_ingress_only_looks() {
        let platform = TestPlatform::new();
        let (_, created) = platform
            .call(
                "url/Shorten",
                json!({"destinationURL": "https://a.example/"}),
            )
            .await;
        let short_url = created["shortURL"].as_str().unwrap().to_owned();
        let hits = async || {
            let listed = platform.call("url/List", json!({"shortURL": short_url}));
            listed.await.1["urlPairs"][0]["hitCount"].clone()
        };
        assert_eq!(hits().await, "0");
        for _ in 0..3 {
            platform
                .call("url/Resolve", json!({"shortURL": short_url}))
                .await;
        }
        assert_eq!(hits().await, "3");
        for (hit, expected) in [(Hit::Peek, "3"), (Hit::Count, "4")] {
            let link = ShortLink::Url(short_url.clone());
            let found = platform.platform().link(&link, hit).unwrap();
            assert_eq!(found.as_str(), "https://a.example/");
            assert_eq!(hits().await, expected);
        }
    }

    #[tokio::test]
    async fn a_link_that_leads_nowhere_is_refused() {
        let platform = TestPlatform::new();
        for destination in [
            "",
            "example.com",
            "javascript:alert(1)",
            "https://u@a.example/",
        ] {
            let body = json!({"destinationURL": destination});
            let (status, error) = platform.call("url/Shorten", body).await;
            assert_eq!(status, 400, "{destination}");
            let detail = error["detail"].as_str().unwrap();
            assert!(detail.starts_with("destinationURL: "), "{detail}");
        }
        let bad_id = json!({"id": "a b", "destinationURL": "https://a.example"});
        assert_eq!(platform.call("url/Create", bad_id).await.0, 400);
        assert_eq!(platform.call("url/Resolve", json!({})).await.0, 400);
        assert_eq!(
            platform.call("url/Resolve", json!({"id": "a.b"})).await.0,
            404
        );
        let elsewhere = json!({"shortURL": "https://other.example/x"});
        assert_eq!(platform.call("url/Resolve", elsewhere).await.0, 404);
    }
}
