use super::super::testing::{TestPlatform, check};
use super::*;

const BACKEND: &str = "http://127.0.0.1:3000";

async fn run(platform: &TestPlatform, app: &str, domains: &[&str]) -> Value {
    let body = json!({"name": app, "backend": BACKEND, "custom_domains": domains});
    let (status, answer) = platform.call("app/Run", body).await;
    assert_eq!(status, 200, "{answer}");
    answer["service"].clone()
}

async fn update(platform: &TestPlatform, app: &str, domains: Value) -> (u16, Value) {
    let body = json!({"name": app, "custom_domains": domains});
    platform.call("app/Update", body).await
}

/// Of the first domain of an app.
async fn state(platform: &TestPlatform, app: &str) -> String {
    let (_, got) = platform.call("app/Get", json!({"name": app})).await;
    let state = &got["service"]["domain_proofs"][0]["state"];
    state.as_str().unwrap_or("none").to_owned()
}

/// As if the proof was found that `proof` asks for.
async fn find(platform: &TestPlatform, app: &str, proof: &Value) -> bool {
    let own = format!("{}/{app}", proof["domain"].as_str().unwrap());
    let token = proof["http_body"].as_str().unwrap().to_owned();
    let found = platform.store().write(move |tx| prove(tx, &own, &token));
    found.await.unwrap()
}

fn app(name: &str) -> Option<WorkloadId> {
    Some(WorkloadId::parse(name).unwrap())
}

#[tokio::test]
async fn a_claim_says_what_to_publish_and_stands_once_it_is_proven() {
    let platform = TestPlatform::new();
    let service = run(&platform, "blog", &["Shop.Example.", "bücher.example"]).await;
    let names = json!(["shop.example", "xn--bcher-kva.example"]);
    assert_eq!(service["custom_domains"], names);
    let proof = &service["domain_proofs"][0];
    let token = proof["http_body"].as_str().unwrap();
    assert_eq!(token.len(), 32);
    let expected = json!({
        "domain": "shop.example",
        "verified": false,
        "state": "pending",
        "txt_name": "_m3o-challenge.shop.example",
        "txt_value": format!("m3o-domain-verification={token}"),
        "http_url": format!("http://shop.example/.well-known/m3o-domain-verification/{token}"),
        "http_body": token,
    });
    assert_eq!(*proof, expected);
    assert_ne!(token, service["domain_proofs"][1]["http_body"]);

    let domains = platform.domains();
    assert_eq!(domains.app_of("shop.example"), None);
    assert!(domains.awaits("shop.example", token));
    let resolve = || platform.call("app/Resolve", json!({"id": "blog"}));
    check(resolve(), 200, json!({"url": BACKEND})).await;

    let wrong = json!({"domain": "shop.example", "http_body": "wrong"});
    assert!(!find(&platform, "blog", &wrong).await);
    assert!(find(&platform, "blog", proof).await);
    assert_eq!(domains.app_of("shop.example"), app("blog"));
    assert!(!domains.awaits("shop.example", token));
    let shown = json!({"url": BACKEND, "custom_domains": ["shop.example"]});
    check(resolve(), 200, shown).await;
    let (_, got) = platform.call("app/Get", json!({"name": "blog"})).await;
    assert_eq!(got["service"]["domain_proofs"][0]["verified"], true);
    assert_eq!(got["service"]["domain_proofs"][1]["verified"], false);
    let (_, listed) = platform.call("app/List", json!({})).await;
    assert_eq!(listed["services"][0], got["service"]);
    assert_eq!(
        platform.call("app/Status", json!({"name": "blog"})).await.1,
        got
    );

    // Another change leaves them, and the same list again changes nothing of them.
    let moved = json!({"name": "blog", "port": 80});
    check(platform.call("app/Update", moved), 200, json!({})).await;
    assert_eq!(domains.app_of("shop.example"), app("blog"));
    let (_, same) = update(&platform, "blog", names).await;
    let proofs = &same["service"]["domain_proofs"];
    assert_eq!(*proofs, got["service"]["domain_proofs"]);
    assert_eq!(domains.app_of("shop.example"), app("blog"));
}

#[tokio::test]
async fn the_first_to_prove_a_domain_has_it_until_it_lets_go() {
    let platform = TestPlatform::new();
    let domains = platform.domains();
    let squatter = run(&platform, "squatter", &["shop.example"]).await;
    let proof = &squatter["domain_proofs"][0];
    assert!(domains.awaits("shop.example", proof["http_body"].as_str().unwrap()));
    let owner = run(&platform, "owner", &["shop.example"]).await;
    let owners = &owner["domain_proofs"][0];
    for proof in [proof, owners] {
        let token = proof["http_body"].as_str().unwrap();
        assert!(
            !domains.awaits("shop.example", token),
            "of two, it speaks for none"
        );
    }
    assert!(find(&platform, "owner", owners).await);
    assert!(!find(&platform, "squatter", proof).await);
    assert_eq!(domains.app_of("shop.example"), app("owner"));
    assert_eq!(state(&platform, "squatter").await, "taken");

    let (status, error) = update(&platform, "squatter", json!(["shop.example"])).await;
    assert_eq!((status, &error["id"]), (409, &json!("app.Update")));
    let detail = "custom_domains: `shop.example` is proven by another app already";
    assert_eq!(error["detail"], detail);
    let third = json!({"name": "third", "backend": BACKEND, "custom_domains": "shop.example"});
    assert_eq!(platform.call("app/Run", third.clone()).await.0, 409);
    let by_name = json!({"name": "third"});
    assert_eq!(
        platform.call("app/Get", by_name).await.0,
        404,
        "nothing is left of it"
    );

    assert_eq!(update(&platform, "owner", json!([])).await.0, 200);
    assert_eq!(domains.app_of("shop.example"), None);
    assert_eq!(state(&platform, "owner").await, "none");
    assert_eq!(state(&platform, "squatter").await, "pending");
    assert!(find(&platform, "squatter", proof).await);
    let by_name = json!({"name": "squatter"});
    check(platform.call("app/Delete", by_name), 200, json!({})).await;
    assert_eq!(domains.app_of("shop.example"), None);
    let again = run(&platform, "squatter", &["shop.example"]).await;
    assert_ne!(again["domain_proofs"][0]["http_body"], proof["http_body"]);
    assert!(
        !find(&platform, "squatter", proof).await,
        "an old token proves nothing"
    );
}

#[tokio::test]
async fn names_that_cannot_be_custom_domains_are_refused_and_change_nothing() {
    let platform = TestPlatform::new();
    run(&platform, "blog", &["shop.example"]).await;
    let many: Vec<String> = (0..21).map(|n| format!("s{n}.example")).collect();
    for (domains, detail) in [
        (
            json!(["user.m3o.com"]),
            "custom_domains: `user.m3o.com` is one of this platform's",
        ),
        (
            json!(["a.example", "x.m3o.sh"]),
            "custom_domains: `x.m3o.sh` is one of",
        ),
        (
            json!(["*.example.com"]),
            "custom_domains: `*.example.com` is a wildcard",
        ),
        (
            json!(["10.0.0.1"]),
            "custom_domains: `10.0.0.1` is an IP address",
        ),
        (
            json!(["https://a.example"]),
            "custom_domains: `https://a.example` is no domain",
        ),
        (
            json!(["a.example", "A.example."]),
            "custom_domains: `a.example` is there twice",
        ),
        (json!([7]), "custom_domains: must be a list"),
        (json!(many), "custom_domains: an app has at most 20"),
    ] {
        let (status, error) = update(&platform, "blog", domains).await;
        assert_eq!(status, 400, "{error}");
        let said = error["detail"].as_str().unwrap();
        assert!(said.starts_with(detail), "{said}");
    }
    let (_, got) = platform.call("app/Get", json!({"name": "blog"})).await;
    assert_eq!(got["service"]["custom_domains"], json!(["shop.example"]));
    assert_eq!(update(&platform, "blog", json!(many[..20])).await.0, 200);
    assert_eq!(
        update(&platform, "nobody", json!(["b.example"])).await.0,
        404
    );
}

#[tokio::test]
async fn the_demo_app_keeps_its_domains_when_it_moves() {
    let platform = TestPlatform::new();
    let register = || platform.register_demo("http://127.0.0.1:1", "http://127.0.0.1:3");
    register().await.unwrap();
    let (_, updated) = update(&platform, "helloworld", json!(["shop.example"])).await;
    let proof = &updated["service"]["domain_proofs"][0];
    assert!(find(&platform, "helloworld", proof).await);
    let moved = platform.register_demo("http://127.0.0.1:2", "http://127.0.0.1:3");
    moved.await.unwrap();
    assert_eq!(platform.domains().app_of("shop.example"), app("helloworld"));
    assert_eq!(state(&platform, "helloworld").await, "verified");
}

#[tokio::test]
async fn a_damaged_claim_is_told_of_and_serves_nobody() {
    let platform = TestPlatform::new();
    let service = run(&platform, "blog", &["shop.example"]).await;
    run(&platform, "other", &["other.example"]).await;
    assert!(find(&platform, "blog", &service["domain_proofs"][0]).await);
    let domains = platform.domains();
    assert_eq!(domains.app_of("shop.example"), app("blog"));
    let put = platform.store().write(|tx| {
        tx.put(Table::Domains, "shop.example/blog", &"something else");
        Ok::<_, store::Error>(())
    });
    put.await.unwrap();
    assert_eq!(domains.app_of("shop.example"), None);

    let by_name = json!({"name": "blog"});
    let list = json!(["shop.example"]);
    for (status, error) in [
        platform.call("app/Get", by_name.clone()).await,
        platform.call("app/List", json!({})).await,
        update(&platform, "blog", list.clone()).await,
        update(&platform, "other", list.clone()).await,
    ] {
        assert_eq!(
            (status, &error["detail"]),
            (500, &json!("a record is damaged"))
        );
    }
    assert_eq!(state(&platform, "other").await, "pending", "others go on");
    // What is there cannot be read, but it can be removed.
    assert_eq!(update(&platform, "blog", json!([])).await.0, 200);
    assert_eq!(update(&platform, "blog", list).await.0, 200);
    assert_eq!(state(&platform, "blog").await, "pending");
}

#[test]
fn links_that_are_http_name_the_port_of_the_proof() {
    let port = |scheme: &str| proof_port(scheme.to_owned().try_into().unwrap());
    assert_eq!(port("https"), 80);
    assert_eq!(port("https:8443"), 80);
    assert_eq!(port("http"), 80);
    assert_eq!(port("http:8080"), 8080);
}
