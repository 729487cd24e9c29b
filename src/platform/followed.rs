//! Where the short links lead that are followed again and again: read once, and again when a link has
//! changed. What is kept of a link says `urls`, how its hits are written `hits`.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Platform;
use super::error::Error;
use super::hits::Pending;
use super::store::Remembered;
use super::urls;
use crate::destination::Destination;
use crate::id::LinkId;
use crate::upstream::{self, Hit, NoLink, ShortLink};

/// The links that were followed last, in places that hold one each: it never grows, and no reader waits.
#[derive(Debug)]
pub(super) struct Followed {
    places: Box<[ArcSwapOption<Way>]>,
    /// Finds the place of an id. With a secret, so that nobody can choose links that share one.
    hasher: RandomState,
}

/// Where a link led when it was read.
#[derive(Debug)]
struct Way {
    id: LinkId,
    /// That of the links, when it was read.
    generation: u64,
    destination: Destination,
    hits: Arc<Pending>,
}

impl Followed {
    pub(super) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| ArcSwapOption::empty()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn place(&self, id: &LinkId) -> &ArcSwapOption<Way> {
        let hash = self.hasher.hash_one(id) as usize;
        &self.places[hash % PLACES]
    }
}

/// Where `link` leads; one that is followed is counted.
///
/// # Errors
/// As [`LocalApi::link`](crate::upstream::LocalApi::link).
pub(super) fn follow(
    platform: &Platform,
    link: &ShortLink,
    hit: Hit,
) -> Result<Destination, NoLink> {
    let id = match link {
        ShortLink::Id(id) => Cow::Borrowed(id),
        ShortLink::Url(url) => Cow::Owned(urls::id_in(platform, url).map_err(told)?),
    };
    // Read before the link is: what is written after that has another number.
    let generation = platform.store.generation_of(Remembered::Links);
    let place = platform.followed.place(&id);
    let is_known = |way: &&Arc<Way>| way.generation == generation && way.id == *id;
    let known = place.load();
    if let Some(way) = known.as_ref().filter(is_known) {
        count(platform, &way.hits, hit);
        return Ok(way.destination.clone());
    }
    let destination = urls::destination_of(platform, &id).map_err(told)?;
    let hits = platform.hits.of(&id);
    count(platform, &hits, hit);
    // Checked when it was written, and again here: what is sent is what we answer for.
    let destination = Destination::parse(&destination)?;
    place.store(Some(Arc::new(Way {
        id: id.into_owned(),
        generation,
        destination: destination.clone(),
        hits,
    })));
    Ok(destination)
}

fn count(platform: &Platform, of: &Pending, hit: Hit) {
    match hit {
        Hit::Count => platform.hits.count(of),
        Hit::Peek => {}
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits `map_err`")]
fn told(error: Error) -> upstream::Error {
    error.to_upstream("url.Resolve")
}

/// Links that are remembered at most; a destination has at most 8 KiB.
const PLACES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::Extras;
    use super::super::store::{self, Table};
    use super::super::testing::{self, TestPlatform};
    use super::*;
    use crate::credentials::Secret;
    use crate::upstream::LocalApi;

    fn follow(platform: &TestPlatform, id: &str) -> Result<String, NoLink> {
        let link = ShortLink::Id(LinkId::parse(id).unwrap());
        let found = super::follow(platform.platform(), &link, Hit::Count);
        found.map(|destination| destination.as_str().to_owned())
    }

    async fn hits(platform: &TestPlatform) -> serde_json::Value {
        let (_, listed) = platform.call("url/List", json!({})).await;
        listed["urlPairs"][0]["hitCount"].clone()
    }

    #[tokio::test]
    async fn a_link_that_is_followed_again_leads_where_it_was_changed_to() {
        let platform = TestPlatform::new();
        let write = async |endpoint, to: &str| {
            let link = json!({"id": "a", "destinationURL": to});
            assert_eq!(platform.call(endpoint, link).await.0, 200);
        };
        let unknown = |found| matches!(found, Err(NoLink::Upstream(upstream::Error::NotFound)));
        assert!(unknown(follow(&platform, "a")));
        write("url/Create", "https://a.example/").await;
        for to in ["https://b.example/", "https://c.example/"] {
            for _ in 0..2 {
                follow(&platform, "a").unwrap();
            }
            write("url/Update", to).await;
            assert_eq!(follow(&platform, "a").unwrap(), to);
        }
        assert_eq!(hits(&platform).await, "6");
        assert_eq!(follow(&platform, "a").unwrap(), "https://c.example/");
        assert_eq!(hits(&platform).await, "7");
        write("url/Delete", "").await;
        assert!(unknown(follow(&platform, "a")));
        write("url/Create", "https://d.example/").await;
        assert_eq!(follow(&platform, "a").unwrap(), "https://d.example/");
        assert_eq!(hits(&platform).await, "1", "it is another link");
    }

    #[tokio::test]
    async fn writing_hits_makes_no_link_be_read_again() {
        let platform = TestPlatform::new();
        let link = json!({"id": "a", "destinationURL": "https://a.example/"});
        assert_eq!(platform.call("url/Create", link).await.0, 200);
        let now = || platform.store().generation_of(Remembered::Links);
        let before = now();
        follow(&platform, "a").unwrap();
        assert_eq!(hits(&platform).await, "1");
        assert_eq!(now(), before);
    }

    #[tokio::test]
    async fn more_links_than_there_are_places_all_lead_where_they_should() {
        let platform = TestPlatform::new();
        let put = platform.store().write(|tx| {
            for number in 0..2 * PLACES {
                let to = format!("https://{number}.example/");
                tx.put(Table::Links, &format!("n{number}"), &urls::Link::to(to));
            }
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        for _ in 0..2 {
            for number in 0..2 * PLACES {
                let to = format!("https://{number}.example/");
                assert_eq!(follow(&platform, &format!("n{number}")).unwrap(), to);
            }
        }
    }

    #[tokio::test]
    async fn a_link_leads_nowhere_while_another_process_has_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let extras = Extras {
            key: Some(Secret::new("dev")),
            ..Extras::default()
        };
        let platform = testing::open(&folder.path().join("store"), &extras).unwrap();
        let put = platform.store.write(|tx| {
            let link = urls::Link::to("https://a.example/".to_owned());
            tx.put(Table::Links, "a", &link);
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        let link = ShortLink::Id(LinkId::parse("a").unwrap());
        let follow = || platform.link(&link, Hit::Count);
        assert!(follow().is_ok() && follow().is_ok());
        platform.let_go(Duration::ZERO).await;
        let refused = follow().unwrap_err();
        assert!(matches!(
            refused,
            NoLink::Upstream(upstream::Error::Unavailable(_))
        ));
        platform.take_back().await;
        assert!(follow().is_ok());
    }
}
