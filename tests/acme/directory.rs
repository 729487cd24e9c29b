//! Stands in front of Pebble: counts what is asked, fails on demand, and says when to renew, which
//! Debian's Pebble cannot yet (RFC 9773).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a client takes for the authority.
pub(crate) struct Directory {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _thread: Thread,
}

#[derive(Default)]
struct State {
    /// How often each kind of thing was asked for.
    asked: HashMap<String, usize>,
    /// How often an answer had each type of problem.
    problems: HashMap<String, usize>,
    /// What is answered to the next orders instead.
    refusals: VecDeque<Refusal>,
    /// The window to renew in, start and end; none: renewal is not spoken of.
    window: Option<(String, String)>,
    /// The certificates whose place new ones are to take.
    replaced: Vec<String>,
    /// New orders wait until this is done.
    gate: Option<oneshot::Receiver<()>>,
    /// The accounts that there are, by their URLs.
    accounts: BTreeSet<String>,
    /// Answers about accounts wait until this is done.
    account_gate: Option<oneshot::Receiver<()>>,
}

/// An answer of the authority that is none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// Too many orders; come again in so many seconds.
    Limited(u64),
    /// An error without a problem document.
    Garbage,
    /// A nonce that is good is called bad.
    BadNonce,
}

impl Directory {
    pub(crate) fn start(
        authority: SocketAddr,
        certificate: &rcgen::Certificate,
        key: &rcgen::KeyPair,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let shared = Arc::clone(&state);
        let thread = Thread::start(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let way = Way {
                    acceptor: acceptor.clone(),
                    connector: connector.clone(),
                    authority,
                    state: Arc::clone(&shared),
                };
                tokio::task::spawn_local(way.serve(stream));
            }
        });
        Self {
            address,
            state,
            _thread: thread,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// How often something was asked for: `order-plz`, `sign-me-up`, …
    pub(crate) fn asked(&self, what: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.get(what).copied().unwrap_or_default()
    }

    /// How often the authority had a problem of that type.
    pub(crate) fn problems(&self, kind: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.problems.get(kind).copied().unwrap_or_default()
    }

    /// Answers the next orders like this.
    pub(crate) fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.state.lock().unwrap().refusals.extend(refusals);
    }

    /// Says when to renew, from now on.
    pub(crate) fn renew_between(&self, start: &str, end: &str) {
        self.state.lock().unwrap().window = Some((start.to_owned(), end.to_owned()));
    }

    /// The certificates whose place new ones took.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.state.lock().unwrap().replaced.clone()
    }

    /// How many accounts there are.
    pub(crate) fn accounts(&self) -> usize {
        self.state.lock().unwrap().accounts.len()
    }

    /// Holds the next answer about an account back until the sender is used or dropped.
    pub(crate) fn hold_account(&self) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.state.lock().unwrap().account_gate = Some(gate);
        open
    }

    /// Holds the next order up until the sender is used or dropped.
    pub(crate) fn hold(&self) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.state.lock().unwrap().gate = Some(gate);
        open
    }
}

/// From one connection to the authority.
#[derive(Clone)]
struct Way {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    authority: SocketAddr,
    state: Arc<Mutex<State>>,
}

type Answer = Response<Full<Bytes>>;

impl Way {
    async fn serve(self, stream: TcpStream) {
        let Ok(stream) = self.acceptor.clone().accept(stream).await else {
            return;
        };
        let service = service_fn(move |request| {
            let way = self.clone();
            async move { way.answer(request).await }
        });
        let _closed = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let what = head.uri.path().split('/').nth(1).unwrap().to_owned();
        let gate = {
            let mut state = self.state.lock().unwrap();
            *state.asked.entry(what.clone()).or_default() += 1;
            if what == "renewal-info" {
                return Ok(window(&state));
            }
            if what == "order-plz"
                && let Some(refusal) = state.refusals.pop_front()
            {
                return Ok(refused(refusal));
            }
            (what == "order-plz").then(|| state.gate.take()).flatten()
        };
        if let Some(gate) = gate {
            let _opened = gate.await;
        }
        let replaces = (what == "order-plz").then(|| replaces(&body)).flatten();
        let host = head.headers[header::HOST].clone();
        let answer = self.pass(Request::from_parts(head, Full::new(body))).await;
        let (mut head, mut body) = answer.into_parts();
        if what == "sign-me-up" {
            let gate = {
                let mut state = self.state.lock().unwrap();
                let account = head.headers.get(header::LOCATION);
                let account = account.map(|account| account.to_str().unwrap().to_owned());
                state.accounts.extend(account);
                state.account_gate.take()
            };
            if let Some(gate) = gate {
                let _opened = gate.await;
            }
        }
        let mut state = self.state.lock().unwrap();
        if let Ok(mut json) = serde_json::from_slice::<Value>(&body) {
            if let Some(kind) = json["type"]
                .as_str()
                .filter(|kind| kind.contains(":error:"))
            {
                let kind = kind.rsplit(':').next().unwrap().to_owned();
                *state.problems.entry(kind).or_default() += 1;
            } else if what == "dir" && state.window.is_some() {
                let host = host.to_str().unwrap();
                json["renewalInfo"] = format!("https://{host}/renewal-info").into();
                body = json.to_string().into();
            } else if let Some(replaces) = replaces {
                json["replaces"] = replaces.clone().into();
                state.replaced.push(replaces);
                body = json.to_string().into();
            }
        }
        head.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(head, Full::new(body)))
    }

    /// Sends it on, with the host that was asked for, which Pebble makes its URLs of.
    async fn pass(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let stream = TcpStream::connect(self.authority).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::task::spawn_local(connection);
        let answer = sender.send_request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }
}

fn window(state: &State) -> Answer {
    let (start, end) = state.window.clone().unwrap();
    let text = serde_json::json!({"suggestedWindow": {"start": start, "end": end}});
    Response::builder()
        .header(header::RETRY_AFTER, "21600")
        .body(Full::new(text.to_string().into()))
        .unwrap()
}

fn refused(refusal: Refusal) -> Answer {
    let problem = |kind: &str| {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        serde_json::json!({"type": kind, "detail": "as the test wants it"}).to_string()
    };
    let answer = Response::builder();
    let (answer, text) = match refusal {
        Refusal::Limited(seconds) => (
            answer
                .status(StatusCode::TOO_MANY_REQUESTS)
                .header(header::RETRY_AFTER, seconds),
            problem("rateLimited"),
        ),
        Refusal::Garbage => (
            answer.status(StatusCode::BAD_GATEWAY),
            "<html>nobody home</html>".to_owned(),
        ),
        Refusal::BadNonce => (answer.status(StatusCode::BAD_REQUEST), problem("badNonce")),
    };
    answer.body(Full::new(text.into())).unwrap()
}

/// What a new order is to take the place of.
fn replaces(body: &[u8]) -> Option<String> {
    let signed: Value = serde_json::from_slice(body).ok()?;
    let payload = BASE64_URL_SAFE_NO_PAD
        .decode(signed["payload"].as_str()?)
        .ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    payload["replaces"].as_str().map(str::to_owned)
}

/// A thread with a local runtime, ended and joined when dropped.
pub(crate) struct Thread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Thread {
    pub(crate) fn start<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = work() => {}
                }
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}
