//! The places of a request where a secret can be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Planted;
use crate::caller::request;

/// Every way in that a client has.
pub(super) fn from_a_client(planted: &mut Planted) {
    api_keys(planted);
    web_sockets(planted);
    verification(planted);
    bodies(planted);
    passing_through(planted);
    malformed(planted);
}

pub(super) fn get(host: &str, target: &str, fields: &[&str]) -> String {
    request("GET", host, target, fields, "")
}

fn post(target: &str, fields: &[&str], body: &str) -> String {
    request("POST", "localhost", target, fields, body)
}

fn api_keys(planted: &mut Planted) {
    const CALL: &str = "/api/helloworld/call";
    for prefix in ["/api", "/v1"] {
        planted.send("api_key of a query", |key| {
            get(
                "localhost",
                &format!("{prefix}/helloworld/call?api_key={key}&name=A"),
                &[],
            )
        });
    }
    for query in [
        "name=A&API_KEY=",
        "api%5Fkey=",
        "api_key=&api_key=",
        "api_key;",
        "",
    ] {
        planted.send("a query that is not quite one", |key| {
            get("localhost", &format!("{CALL}?{query}{key}"), &[])
        });
    }
    planted.send("api_key of a query, elsewhere", |key| {
        get("localhost", &format!("/nothing?api_key={key}"), &[])
    });
    planted.send("api_key of a query, on an app", |key| {
        get("nobody.m3o.app", &format!("/?api_key={key}"), &[])
    });
    planted.send("api_key of a form", |key| {
        let body = format!("api_key={key}&name=A");
        post(
            CALL,
            &["Content-Type: application/x-www-form-urlencoded"],
            &body,
        )
    });
    planted.send("api_key of a multipart form", |key| {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"api_key\"\r\n\r\n{key}\r\n--b--\r\n"
        );
        post(
            CALL,
            &["Content-Type: multipart/form-data; boundary=b"],
            &body,
        )
    });
    planted.send("a multipart form that breaks off", |key| {
        let body = format!("--b\r\nContent-Disposition: form-data; name=\"api_key\"\r\n\r\n{key}");
        post(
            CALL,
            &["Content-Type: multipart/form-data; boundary=b"],
            &body,
        )
    });
    planted.send("Bearer", |key| {
        get(
            "localhost",
            CALL,
            &[&format!("Authorization: Bearer {key}")],
        )
    });
    for basic in ["", "user:"] {
        planted.send("Basic", |key| {
            let basic = STANDARD.encode(format!("{basic}{key}"));
            get(
                "localhost",
                CALL,
                &[&format!("Authorization: Basic {basic}")],
            )
        });
    }
    planted.send("an unknown scheme", |key| {
        get(
            "localhost",
            CALL,
            &[&format!("Authorization: Digest {key}")],
        )
    });
    planted.send("Authorization without a scheme", |key| {
        get("localhost", CALL, &[&format!("Authorization: {key}")])
    });
    planted.send("Cookie", |key| {
        get("localhost", CALL, &[&format!("Cookie: session={key}")])
    });
    planted.send("X-Api-Key", |key| {
        get("localhost", CALL, &[&format!("X-Api-Key: {key}")])
    });
    planted.send("Referer", |key| {
        let field = format!("Referer: http://localhost/?api_key={key}");
        get("localhost", CALL, &[&field])
    });
}

fn web_sockets(planted: &mut Planted) {
    let handshake = |protocol: &str, version: &str| {
        format!(
            "GET /api/helloworld/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: {version}\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
    };
    // The answer to a handshake that is refused leaves the connection open: ask for its end.
    let close =
        |text: String| text + "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    planted.send("a subprotocol", |key| close(handshake(key, "13")));
    planted.send("one of two subprotocols", |key| {
        close(handshake(&format!("chat, {key}"), "13"))
    });
    planted.send("a subprotocol of an old version", |key| {
        close(handshake(key, "8"))
    });
}

fn verification(planted: &mut Planted) {
    for target in [
        "/?token=",
        "/?token=x&redirectUrl=https://example.com/?a=",
        "/",
    ] {
        planted.send("a target on the user host", |token| {
            get("user.m3o.com", &format!("{target}{token}"), &[])
        });
    }
    for target in [
        "/user/",
        "/user/x?token=",
        "/user/x?redirectUrl=https://example.com/?a=",
    ] {
        planted.send("a target below /user", |token| {
            get(
                "localhost",
                &format!("{target}{token}"),
                &["Accept: text/html"],
            )
        });
    }
    planted.send("a token by POST", |token| {
        request("POST", "user.m3o.com", &format!("/?token={token}"), &[], "")
    });
    planted.send("a token by DELETE", |token| {
        request(
            "DELETE",
            "user.m3o.com",
            &format!("/?token={token}"),
            &[],
            "",
        )
    });
    planted.send("a redirect that is refused", |token| {
        let target = format!("/?token=x&redirectUrl=https://user:{token}@example.com/");
        get("user.m3o.com", &target, &[])
    });
    planted.send("a token beside a doubled slash", |token| {
        get("localhost", &format!("//user/{token}"), &[])
    });
}

fn bodies(planted: &mut Planted) {
    const KEY: &str = "Authorization: Bearer dev";
    const JSON: &str = "Content-Type: application/json";
    let login = |body: String| post("/v1/user/login", &[KEY, JSON], &body);
    planted.send("a password", |password| {
        login(json!({"email": "a@example.com", "password": password}).to_string())
    });
    planted.send("a password of a form", |password| {
        let body = format!("email=a@example.com&password={password}");
        let form = "Content-Type: application/x-www-form-urlencoded";
        post("/api/user/login", &[KEY, form], &body)
    });
    planted.send("a password of a query", |password| {
        let target = format!("/api/user/login?email=a@example.com&password={password}");
        post(&target, &[KEY], "")
    });
    for (before, after) in [
        (r#"{"password":"#, ""),
        (r#"{"password":""#, ""),
        (r#"{"password":[""#, r#""]}"#),
        (r#"{"password":{""#, r#"":1}}"#),
        (r#"[""#, r#""]"#),
        (r#"""#, r#"""#),
        ("", ""),
    ] {
        planted.send("JSON that is not what it should be", |password| {
            login(format!("{before}{password}{after}"))
        });
    }
    for (field, endpoint) in [
        ("password", "create"),
        ("oldPassword", "updatePassword"),
        ("sessionId", "readSession"),
        ("sessionId", "logout"),
        ("token", "verifyEmail"),
        ("email", "sendVerificationEmail"),
    ] {
        planted.send("a field of user/*", |secret| {
            let body = json!({ field: secret }).to_string();
            post(&format!("/v1/user/{endpoint}"), &[KEY, JSON], &body)
        });
    }
    planted.send(
        "an environment variable of an app that is refused",
        |secret| {
            let body = json!({"name": "a", "backend": "none", "env_vars": {"SECRET": secret}});
            post("/v1/app/run", &[KEY, JSON], &body.to_string())
        },
    );
    planted.send("a password in the URL of a backend", |secret| {
        let body = json!({"name": "a", "backend": format!("http://u:{secret}@example.com")});
        post("/v1/app/run", &[KEY, JSON], &body.to_string())
    });
    planted.send("a password in a destination", |secret| {
        let body = json!({"destinationURL": format!("http://u:{secret}@example.com")});
        post("/v1/url/create", &[KEY, JSON], &body.to_string())
    });
}

fn passing_through(planted: &mut Planted) {
    for host in [
        "secretive.m3o.app",
        "cut.m3o.app",
        "gone.m3o.app",
        "secretive.m3o.sh",
    ] {
        planted.send("Authorization to a backend", |secret| {
            let field = format!("Authorization: Bearer {secret}");
            get(host, "/", &[&field])
        });
        planted.send("Cookie to a backend", |secret| {
            get(host, "/", &[&format!("Cookie: id={secret}; other=1")])
        });
        planted.send("a query to a backend", |secret| {
            get(host, &format!("/?code={secret}&{secret}"), &[])
        });
        planted.send("a form to a backend", |secret| {
            request("POST", host, "/", &[], &format!("password={secret}"))
        });
    }
    planted.send("user-info of an absolute target", |secret| {
        get(
            "localhost",
            &format!("http://user:{secret}@localhost/u/x"),
            &[],
        )
    });
    planted.send("user-info of Host", |secret| {
        get(&format!("user:{secret}@localhost"), "/", &[])
    });
    planted.send("user-info of CONNECT", |secret| {
        request(
            "CONNECT",
            "localhost",
            &format!("user:{secret}@localhost:1"),
            &[],
            "",
        )
    });
}

fn malformed(planted: &mut Planted) {
    let raw = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n")
    };
    planted.send("a target with a space", |secret| {
        raw(&format!("/?api_key={secret} x"), "")
    });
    planted.send("a target that is too long", |secret| {
        raw(&format!("/?api_key={secret}{}", "x".repeat(20_000)), "")
    });
    planted.send("a head that is too large", |secret| {
        raw(
            "/",
            &format!(
                "Authorization: Bearer {secret}\r\nX: {}\r\n",
                "x".repeat(40_000)
            ),
        )
    });
    planted.send("a field without a colon", |secret| {
        raw("/", &format!("Authorization Bearer {secret}\r\n"))
    });
    planted.send("a field with a control character", |secret| {
        raw("/", &format!("Authorization: Bearer {secret}\u{1}\r\n"))
    });
    planted.send("a field name with a space", |secret| {
        raw("/", &format!("Authorization : Bearer {secret}\r\n"))
    });
    planted.send("two lengths", |secret| {
        let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        raw(&format!("/api/a/b?api_key={secret}"), fields)
    });
    planted.send("two hosts", |secret| {
        raw(&format!("/?token={secret}"), "Host: other\r\n")
    });
    planted.send("a method that is none", |secret| {
        format!("{secret} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    });
    planted.send("no request at all", |secret| format!("{secret}\r\n\r\n"));
    planted.send("another version", |secret| {
        format!("GET /?api_key={secret} HTTP/3.9\r\nHost: localhost\r\n\r\n")
    });
    planted.send("bytes that are not ASCII", |secret| {
        raw(&format!("/?api_key=\u{e4}{secret}"), "")
    });
    planted.send("a chunk that is none", |secret| {
        let fields = format!("Transfer-Encoding: chunked\r\nAuthorization: Bearer {secret}\r\n");
        raw("/api/user/login", &fields).replace("GET", "POST") + &format!("{secret}\r\n\r\n")
    });
    planted.send("a compressed form", |secret| {
        let fields = [
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Encoding: gzip",
        ];
        post("/api/user/login", &fields, &format!("api_key={secret}"))
    });
}
