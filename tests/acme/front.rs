//! Where the authority looks for proofs: a page over HTTP, and a certificate over TLS.

use std::sync::{Arc, Mutex};

use m3o_ingress::tls::challenges::Challenges;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::directory::{Thread, provider};

/// Answers challenges until it is dropped.
pub(crate) struct Front {
    pub(crate) http: u16,
    pub(crate) https: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _thread: Thread,
}

/// What is answered where a page is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pages {
    /// What is right.
    #[default]
    Right,
    /// Something else.
    Wrong,
}

impl Front {
    pub(crate) fn start(challenges: Arc<Challenges>, pages: Pages) -> Self {
        let asked = Arc::default();
        let answers = Answers {
            challenges: Arc::clone(&challenges),
            pages,
            asked: Arc::clone(&asked),
        };
        let bind = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (http, https) = (bind(), bind());
        let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
        Self {
            http: port(&http),
            https: port(&https),
            asked,
            _thread: Thread::start(move || async move {
                let http = TcpListener::from_std(http).unwrap();
                let https = TcpListener::from_std(https).unwrap();
                tokio::task::spawn_local(async move {
                    while let Ok((stream, _)) = http.accept().await {
                        tokio::task::spawn_local(page(stream, answers.clone()));
                    }
                });
                let acceptor = acceptor(challenges);
                while let Ok((stream, _)) = https.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::task::spawn_local(async move {
                        let _shown = acceptor.accept(stream).await;
                    });
                }
            }),
        }
    }

    /// The key authorizations that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Answers {
    challenges: Arc<Challenges>,
    pages: Pages,
    asked: Arc<Mutex<Vec<String>>>,
}

/// RFC 8555, 8.3.
async fn page(stream: TcpStream, answers: Answers) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut field = String::new();
    while stream.read_line(&mut field).await.ok()? > 2 {
        field.clear();
    }
    let path = line.split(' ').nth(1)?;
    let token = path.strip_prefix("/.well-known/acme-challenge/");
    let answer = token.and_then(|token| answers.challenges.answer_http(token));
    let (status, body) = match answer {
        Some(answer) => {
            answers.asked.lock().unwrap().push(answer.clone());
            match answers.pages {
                Pages::Right => ("200 OK", answer),
                Pages::Wrong => ("200 OK", "something else".to_owned()),
            }
        }
        None => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.ok()
}

#[derive(Debug)]
struct Shown(Arc<Challenges>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.alpn(hello.server_name()?)
    }
}

/// RFC 8737.
fn acceptor(challenges: Arc<Challenges>) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(challenges)));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
