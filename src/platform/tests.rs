//! What holds for every call, whichever its service.

use std::path::Path;

use serde_json::json;

use super::testing::{TestPlatform, check, open};
use super::*;
use crate::mail;
use crate::server::shutdown::stop_signal;

#[test]
fn a_path_names_an_endpoint_in_either_case() {
    let named = |path: &str| Endpoint::of(path).map(|endpoint| endpoint.id());
    for path in [
        "/v1/helloworld/Call",
        "/v1/helloworld/call",
        "/v1/Helloworld/call",
        "/v1/helloworld/Helloworld/Call",
    ] {
        assert_eq!(named(path).as_deref(), Some("helloworld.Call"), "{path}");
    }
    assert_eq!(named("/v1/user/readSession").unwrap(), "user.ReadSession");
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/app",
        "/v1/app/",
        "/v1//Run",
        "/v2/app/Run",
        "/v1/app/Run/",
        "/v1/app/Run/x",
        "/v1/a%20b/Run",
        "/v1/app/../Run",
        "/v1/ä/Run",
    ] {
        assert_eq!(named(path), None, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_built_differ() {
    let platform = TestPlatform::new();
    for (endpoint, expected) in [
        ("nothing/Call", 404),
        ("weather/Now", 404),
        ("app/Nothing", 404),
        ("helloworld/Nothing", 404),
        ("url/nothing", 404),
        ("user/Nothing", 404),
        ("user/readsession", 404),
        ("app/Reserve", 501),
        ("function/reserve", 501),
        ("user/LogoutAll", 501),
        ("user/SendPasswordResetEmail", 501),
        ("user/ResetPassword", 501),
        ("user/List", 501),
        ("user/SendMagicLink", 501),
        ("user/verifyToken", 501),
    ] {
        let (status, error) = platform.call(endpoint, json!({})).await;
        assert_eq!(status, expected, "{endpoint}");
        assert_eq!(error["code"], expected);
    }
    check(
        platform.call("app/Regions", json!({})),
        200,
        json!({"regions": ["local"]}),
    )
    .await;
}

#[tokio::test]
async fn nobody_calls_without_a_key_but_the_ingress_itself() {
    let platform = TestPlatform::new();
    let send = async |key: Option<&'static str>, own: Option<OwnCall>| {
        let mut request = TestPlatform::request("helloworld/Call", &json!({}));
        request.headers_mut().clear();
        if let Some(key) = key {
            let key = HeaderValue::from_static(key);
            request.headers_mut().insert(header::AUTHORIZATION, key);
        }
        if let Some(own) = own {
            request.extensions_mut().insert(own);
        }
        platform.send(request).await
    };
    assert_eq!(send(Some("Bearer dev"), None).await.status(), 200);
    assert_eq!(send(Some("Basic OmRldg=="), None).await.status(), 200);
    assert_eq!(send(None, Some(OwnCall)).await.status(), 200);
    for key in [None, Some("Bearer wrong")] {
        let refused = send(key, None).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn a_call_is_a_post() {
    let platform = TestPlatform::new();
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let mut request = TestPlatform::request("helloworld/Call", &json!({}));
        *request.method_mut() = method;
        let refused = platform.send(request).await;
        assert_eq!(refused.status(), 405);
        assert_eq!(refused.headers()["allow"], "POST");
    }
}

#[tokio::test]
async fn a_body_is_limited_and_must_be_an_object() {
    let platform = TestPlatform::new();
    let mut request = TestPlatform::request("helloworld/Call", &json!({}));
    *request.body_mut() = Body::from("x".repeat((1 << 20) + 1));
    assert_eq!(platform.send(request).await.status(), 413);
    let (status, error) = platform.call("helloworld/Call", json!(["name"])).await;
    assert_eq!((status, &error["id"]), (400, &json!("helloworld.Call")));
}

#[tokio::test]
async fn a_list_with_a_damaged_record_is_an_error() {
    use store::Table::{Apps, Functions, Links};
    let platform = TestPlatform::new();
    for (table, endpoint) in [
        (Apps, "app/List"),
        (Functions, "function/List"),
        (Links, "url/List"),
    ] {
        assert_eq!(platform.call(endpoint, json!({})).await.0, 200);
        let put = platform.store().write(move |tx| {
            tx.put(table, "damaged", &"something else");
            Ok::<_, store::Error>(())
        });
        put.await.unwrap();
        let (status, error) = platform.call(endpoint, json!({})).await;
        let expected = (500, &json!("a record is damaged"));
        assert_eq!((status, &error["detail"]), expected, "{endpoint}");
    }
}

fn with_key(key: Option<&str>) -> Extras {
    Extras {
        key: key.map(Secret::new),
        ..Extras::default()
    }
}

/// Of `keys`, those that may call.
async fn admitted<'k>(platform: &Platform, keys: &[&'k str]) -> Vec<&'k str> {
    let mut admitted = Vec::new();
    for key in keys {
        let request = http::Request::post("/v1/helloworld/Call")
            .header("authorization", format!("Bearer {key}"))
            .body(Body::Empty)
            .unwrap();
        let (pool, tasks) = (Pool::for_tests(), TaskTracker::new());
        if platform.answer(request, &pool, &tasks).await.status() == 200 {
            admitted.push(*key);
        }
    }
    admitted
}

#[tokio::test]
async fn a_key_is_needed_once_and_only_its_digest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let error = open(&path, &with_key(None)).unwrap_err();
    assert!(matches!(error, OpenError::NoKey { .. }));
    assert!(error.to_string().contains("KEY_ENV"), "{error}");
    for unusable in ["", "two words"] {
        let error = open(&path, &with_key(Some(unusable))).unwrap_err();
        assert!(matches!(error, OpenError::BadKey { .. }), "{error}");
    }
    for key in [Some("first-key"), None, None] {
        let platform = open(&path, &with_key(key)).unwrap();
        let admitted = admitted(&platform, &["first-key", "another"]).await;
        assert_eq!(admitted, ["first-key"]);
    }
    let bytes = std::fs::read(&path).unwrap();
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!holds(b"first-key"), "only digests are kept");
}

#[tokio::test]
async fn a_key_that_is_given_takes_the_place_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let both = ["first", "second"];
    for (given, expected) in [
        (Some("first"), "first"),
        (Some("second"), "second"),
        (None, "second"),
        (Some("first"), "first"),
    ] {
        let platform = open(&path, &with_key(given)).unwrap();
        assert_eq!(admitted(&platform, &both).await, [expected]);
    }
}

#[tokio::test]
async fn a_store_with_several_keys_keeps_them_until_one_is_given() {
    // What earlier versions left: every key that they were ever given.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let keys = ["first", "second", "third"];
    let platform = open(&path, &with_key(Some("first"))).unwrap();
    let added = platform.store.write(|tx| {
        for key in ["second", "third"] {
            let record = json!({"created": "2026-01-01T00:00:00Z"});
            tx.put(store::Table::Keys, &random::digest(key), &record);
        }
        Ok::<_, store::Error>(())
    });
    added.await.unwrap();
    drop(platform);
    let platform = open(&path, &with_key(None)).unwrap();
    assert_eq!(admitted(&platform, &keys).await, keys);
    drop(platform);
    let platform = open(&path, &with_key(Some("second"))).unwrap();
    assert_eq!(admitted(&platform, &keys).await, ["second"]);
}

#[tokio::test]
async fn hits_are_written_when_the_drain_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let extras = || Extras {
        key: Some(Secret::new("dev")),
        ..Extras::default()
    };
    let call = async |platform: &Platform, endpoint: &str, body: Value| {
        let request = http::Request::post(format!("/v1/url/{endpoint}"))
            .extension(OwnCall)
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = platform
            .answer(request, &Pool::for_tests(), &TaskTracker::new())
            .await;
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect(1 << 20).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    let platform = open(&path, &extras()).unwrap();
    let link = json!({"id": "a", "destinationURL": "https://a.example/"});
    call(&platform, "Create", link).await;
    for _ in 0..5 {
        call(&platform, "Resolve", json!({"id": "a"})).await;
    }
    let (stopper, stop) = stop_signal();
    stopper.advance(Stage::Draining);
    platform.run_background(stop, &Pool::for_tests()).await;
    drop(platform);

    let platform = open(&path, &extras()).unwrap();
    let listed = call(&platform, "List", json!({})).await;
    assert_eq!(listed["urlPairs"][0]["hitCount"], "5");
}

#[test]
fn mail_that_could_never_leave_stops_the_start() {
    let config = Config {
        store: Path::new("memory").to_owned(),
        key_env: "KEY_ENV".to_owned(),
        public: PublicScheme::default(),
        mail: Some(mail::Config {
            smtp_url_env: "SMTP_ENV".to_owned(),
            from: "noreply@m3o.one".to_owned(),
        }),
    };
    let open = |smtp_url: Option<&str>| {
        let extras = Extras {
            key: Some(Secret::new("dev")),
            smtp_url: smtp_url.map(Secret::new),
            ..Extras::default()
        };
        Platform::open(&config, Rules::default(), &extras)
    };
    let error = open(None).unwrap_err().to_string();
    assert!(error.contains("SMTP_ENV"), "{error}");
    assert!(matches!(open(Some("x")), Err(OpenError::Smtp(_))));
    assert!(open(Some("smtp://127.0.0.1:25")).is_ok());
}

#[test]
fn threads_can_share_a_platform() {
    fn shared<T: Send + Sync>() {}
    shared::<Platform>();
}
