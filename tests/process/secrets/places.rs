//! The places of a request where a secret can be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Planted;
use crate::caller::request;

/// Every way in that a client has.
pub(super) fn from_a_client(planted: &mut Planted) {
    keys_of_queries(planted);
    other_keys(planted);
    other_fields(planted);
    web_sockets(planted);
    verification(planted);
    bodies(planted);
    every_endpoint(planted);
    passing_through(planted);
    hosts(planted);
    malformed(planted);
    malformed_bodies(planted);
}

pub(super) fn get(host: &str, target: &str, fields: &[&str]) -> String {
    request("GET", host, target, fields, "")
}

fn post(target: &str, fields: &[&str], body: &str) -> String {
    request("POST", "localhost", target, fields, body)
}

fn keys_of_queries(planted: &mut Planted) {
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
        "Api-Key=",
        "apiKey=",
        "API%5FKEY=",
        "%61pi_key=",
        "api_key%3D",
        "api_key[]=",
        "name=A;api_key=",
        "",
    ] {
        planted.send("a query that is not quite one", |key| {
            get("localhost", &format!("{CALL}?{query}{key}"), &[])
        });
    }
    for mistaken in [
        "/api/helloworld/call;api_key=",
        "/api/helloworld/call&api_key=",
        "/api/helloworld/call%3Fapi_key=",
        "/api/helloworld/call%3fapi%5Fkey%3D",
        "/api/helloworld/call/api-key=",
        "/u/x%3Ftoken%3D",
    ] {
        planted.send("a query that is taken for a path", |key| {
            get("localhost", &format!("{mistaken}{key}"), &[])
        });
    }
    planted.send("api_key of a query, elsewhere", |key| {
        get("localhost", &format!("/nothing?api_key={key}"), &[])
    });
    planted.send("api_key of a query, on an app", |key| {
        get("nobody.m3o.app", &format!("/?api_key={key}"), &[])
    });
}

fn other_keys(planted: &mut Planted) {
    const CALL: &str = "/api/helloworld/call";
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

fn other_fields(planted: &mut Planted) {
    const CALL: &str = "/api/helloworld/call";
    for field in [
        "Proxy-Authorization: Basic ",
        "Api-Key: ",
        "X-Auth-Token: ",
        "Set-Cookie: id=",
        "Forwarded: for=",
        "X-Forwarded-For: ",
        "X-Forwarded-Host: user:password@",
        "X-Request-Id: ",
        "Via: 1.1 ",
        "CDN-Loop: ",
        "If-None-Match: ",
        "Referer: https://user:",
        "Content-Type: multipart/form-data; boundary=",
        "Content-Type: ",
        "Accept: text/",
    ] {
        for (host, target) in [("localhost", CALL), ("gone.m3o.app", "/")] {
            planted.send(field, |secret| {
                get(host, target, &[&format!("{field}{secret}")])
            });
        }
    }
    for agent in [
        "a/1 api_key=",
        "a/1 Bearer ",
        "{\"token\": \"",
        "{\"api_key\":\"",
        "http://user:",
    ] {
        planted.send("User-Agent", |secret| {
            let field = format!("User-Agent: {agent}{secret}@localhost/");
            get("localhost", CALL, &[&field])
        });
    }
    planted.send("two Authorization fields", |secret| {
        let field = format!("Authorization: Bearer {secret}");
        get("localhost", CALL, &[&field, &field])
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
    for host in ["gone.m3o.app", "cut.m3o.app", "nobody.m3o.app"] {
        planted.send("a subprotocol for an app", |key| {
            close(handshake(key, "13").replacen("localhost", host, 1))
        });
    }
    planted.send("a subprotocol without a handshake", |key| {
        let field = format!("Sec-WebSocket-Protocol: {key}");
        get("localhost", "/api/helloworld/stream", &[&field])
    });
}

fn verification(planted: &mut Planted) {
    for target in [
        "/?token=",
        "/?token=x&redirectUrl=https://example.com/?a=",
        "/?token=x&redirectUrl=https%3A%2F%2Fexample.com%2F%3Ftoken%3D",
        "/?token=x&redirectUrl=https://example.com/&redirectUrl=javascript:",
        "/?token=x&redirectUrl=javascript:",
        "/?token=x&redirectUrl=//",
        "/?token=x&failureRedirectUrl=https://user:password@",
        "/?TOKEN=",
        "/?token%3D",
        "/?redirectUrl=https://example.com/?token=",
        "/verify/",
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
        "/User/",
        "/user//",
        "/%75ser/",
        "/user%2F",
        "/./user/",
        "/user/x/",
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
    planted.send("a token of a link whose host cannot be read", |token| {
        get("user.m3o.com", &format!("/{token}"), &["Host: other"])
    });
    planted.send("a token by HEAD", |token| {
        request("HEAD", "user.m3o.com", &format!("/?token={token}"), &[], "")
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

/// The fields of all calls at once, as texts and as what is no text.
fn every_endpoint(planted: &mut Planted) {
    const FIELDS: [&str; 16] = [
        "backend",
        "branch",
        "destinationURL",
        "email",
        "env_vars",
        "id",
        "name",
        "newPassword",
        "oldPassword",
        "password",
        "port",
        "redirectUrl",
        "sessionId",
        "shortURL",
        "token",
        "username",
    ];
    for (service, endpoints) in [
        ("app", "run get update delete status resolve logs reserve"),
        ("function", "deploy call delete describe update proxy logs"),
        ("url", "create shorten list resolve update delete"),
        (
            "user",
            "create read update delete updatePassword login logout logoutAll readSession \
                  verifyEmail sendVerificationEmail sendPasswordResetEmail resetPassword \
                  sendMagicLink verifyToken nothing",
        ),
        ("nothing", "call"),
    ] {
        for endpoint in endpoints.split_whitespace() {
            let target = format!("/v1/{service}/{endpoint}");
            for wrap in [
                |text: &str| json!(text),
                |text: &str| json!([{ text: text }]),
            ] {
                planted.send(&target, |secret| {
                    let fields: serde_json::Map<_, _> = FIELDS
                        .iter()
                        .map(|name| ((*name).to_owned(), wrap(secret)))
                        .collect();
                    let body = serde_json::Value::from(fields).to_string();
                    let json = "Content-Type: application/json";
                    post(&target, &["Authorization: Bearer dev", json], &body)
                });
            }
        }
    }
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

fn hosts(planted: &mut Planted) {
    for (before, after) in [
        ("user:", "@localhost"),
        ("", "@localhost"),
        ("user:", ""),
        ("localhost/?api_key=", ""),
        ("localhost?code=", ""),
        ("localhost, ", ""),
        ("localhost; key=", ""),
        ("localhost@user:", ""),
    ] {
        planted.send("a host that is none", |secret| {
            get(&format!("{before}{secret}{after}"), "/", &[])
        });
    }
    for (before, after) in [
        ("http://localhost/api/helloworld/call?api_key=", ""),
        ("http://user.m3o.com/?token=", ""),
        ("http://user.m3o.com/", ""),
        ("http://localhost/user/", ""),
        ("http://", "@localhost/api/helloworld/call"),
        ("http://user:", "@gone.m3o.app/"),
        ("HTTP://user:", "@user.m3o.com/?token=x"),
        ("http://user:p@", "@localhost/"),
        ("http://localhost:", "/"),
        ("ftp://user:", "@localhost/"),
        ("user:", "@localhost"),
        ("//user:", "@localhost/"),
    ] {
        planted.send("an absolute target", |secret| {
            get("localhost", &format!("{before}{secret}{after}"), &[])
        });
    }
}

/// A request whose fields are written as they are.
fn raw(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n")
}

fn malformed(planted: &mut Planted) {
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
    for field in [
        "X: a\r\n ",
        "X: a\r",
        "X: \0",
        "X\u{e4}: ",
        "X@: ",
        ": ",
        "",
    ] {
        planted.send("a field that is none", |secret| {
            raw("/", &format!("{field}{secret}\r\n"))
        });
    }
    for line in [
        "GET /?api_key={} http/1.1",
        "GET  /?api_key={} HTTP/1.1",
        "GET /?api_key={}",
    ] {
        planted.send("a first line that is none", |secret| {
            let line = line.replace("{}", secret);
            format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        });
    }
    planted.send("a line that ends without CR", |secret| {
        format!("GET / HTTP/1.1\nHost: localhost\nAuthorization: Bearer {secret}\n\n")
    });
    planted.send("another protocol", |secret| {
        format!("\u{16}\u{3}\u{1}{secret}\r\n\r\n")
    });
    planted.send("HTTP/2", |secret| {
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{secret}\r\n\r\n")
    });
    planted.send("what comes after a request", |secret| {
        format!("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n{secret} {secret}\r\n\r\n")
    });
    planted.send("a second request that is malformed", |secret| {
        format!(
            "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n\
             GET /?api_key={secret} HTTP/1.1\r\nHost localhost\r\n\r\n"
        )
    });
}

fn malformed_bodies(planted: &mut Planted) {
    const LOGIN: &str = "POST /api/user/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    for field in [
        "Content-Length: ",
        "Content-Length: 5, ",
        "Transfer-Encoding: ",
        "Transfer-Encoding: chunked, ",
        "Expect: ",
        "Content-Encoding: ",
        "Upgrade: ",
    ] {
        planted.send(field, |secret| format!("{LOGIN}{field}{secret}\r\n\r\n"));
    }
    for chunks in [
        "5;password={}\r\nhello\r\n0\r\n\r\n",
        "5;\n{}\r\nhello\r\n0\r\n\r\n",
        "5\r\n{}",
        "0\r\nAuthorization: Bearer {}\r\n\r\n",
        "0\r\nAuthorization : Bearer {}\r\n\r\n",
        "0\r\n{}\r\n\r\n",
    ] {
        for target in ["/api/user/login", "/v1/user/login"] {
            planted.send("chunks that are none", |secret| {
                let chunks = chunks.replace("{}", secret);
                format!("{LOGIN}Transfer-Encoding: chunked\r\n\r\n{chunks}")
                    .replace("/api/user/login", target)
            });
        }
    }
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
