//! A backend whose every byte is scripted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::PATIENCE;
use super::message::{Arrival, Framing, Head, Reader, Seen};

/// A server on loopback that keeps what it was asked.
pub(crate) struct TestBackend {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    stopping: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    tls: Option<Arc<rustls::ServerConfig>>,
    script: Box<Script>,
}

type Script = dyn Fn(&mut Answering) + Send + Sync;

/// One request that a script answers, and the connection that it came by.
pub(crate) struct Answering {
    pub(crate) head: Head,
    index: usize,
    body_read: bool,
    closing: bool,
    shared: Arc<Shared>,
    reader: Reader<Box<dyn Wire>>,
    tcp: TcpStream,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

impl TestBackend {
    /// Reads each request whole and answers it with `response`.
    pub(crate) fn answering(response: impl AsRef<[u8]>) -> Self {
        let response = response.as_ref().to_vec();
        Self::scripted(move |answering| {
            answering.body();
            answering.write(&response);
        })
    }

    /// Answers as `script` does, for one request after the other.
    pub(crate) fn scripted(script: impl Fn(&mut Answering) + Send + Sync + 'static) -> Self {
        Self::scripted_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).unwrap()
    }

    /// The same at a certain address.
    pub(crate) fn scripted_at(
        address: SocketAddr,
        script: impl Fn(&mut Answering) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self::start(listener, None, Box::new(script)))
    }

    /// Speaks TLS with a certificate for `localhost` and 127.0.0.1, whose authority it writes into
    /// `ca`.
    pub(crate) fn secure(ca: &Path, response: &'static str) -> Self {
        let tls = Some(certified(ca));
        Self::start(
            anywhere(),
            tls,
            Box::new(move |answering| {
                answering.body();
                answering.write(response);
            }),
        )
    }

    /// As [`scripted`](Self::scripted), over TLS by an authority that is written to `ca`.
    pub(crate) fn secure_scripted(
        ca: &Path,
        script: impl Fn(&mut Answering) + Send + Sync + 'static,
    ) -> Self {
        Self::start(anywhere(), Some(certified(ca)), Box::new(script))
    }

    fn start(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: Box<Script>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            streams: Mutex::default(),
            tls,
            script,
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self {
            address,
            scheme,
            shared,
            accepting: Some(accepting),
        }
    }

    /// `http://127.0.0.1:PORT`, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Every request so far, in the order of their heads.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.into_iter().next().unwrap()
    }

    /// The last request so far.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    /// Connections accepted so far.
    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }
}

impl Drop for TestBackend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _wakes_it_up = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _panicked = accepting.join();
        }
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _already_closed = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Answering {
    /// The connection itself.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads the body, and keeps it with the request.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        self.try_body().unwrap_or_default()
    }

    fn try_body(&mut self) -> io::Result<Vec<u8>> {
        self.body_read = true;
        let framing = Framing::of_request(&self.head);
        let read = self.reader.body(framing);
        let mut seen = self.shared.seen.lock().unwrap();
        let seen = &mut seen[self.index];
        if read.is_err() {
            self.closing = true;
            seen.arrival = Arrival::Cut;
        }
        let (body, trailers) = read?;
        seen.arrival = Arrival::Whole;
        seen.body.clone_from(&body);
        seen.trailers = trailers;
        Ok(body)
    }

    /// Reads the next chunk of a chunked body.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.body_read = true;
        self.reader.chunk()
    }

    pub(crate) fn target(&self) -> String {
        self.head.first.split(' ').nth(1).unwrap().to_owned()
    }

    /// Writes bytes as they are. A peer that is gone is not an error here.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        if self.try_write(bytes).is_err() {
            self.closing = true;
        }
    }

    pub(crate) fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())?;
        self.reader.stream.flush()
    }

    /// Whatever arrives next on the connection, at least a byte; empty at its end.
    pub(crate) fn some(&mut self) -> Vec<u8> {
        self.body_read = true;
        self.reader.some().unwrap_or_default()
    }

    /// Closes the connection when the script is done.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.body_read = true;
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(&mut self) {
        self.close();
        let socket = socket2::SockRef::from(&self.tcp);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Waits until the other side closes the connection, for ever if need be.
    pub(crate) fn wait_for_close(&mut self) {
        self.close();
        while let Ok(bytes) = self.reader.some()
            && !bytes.is_empty()
        {}
    }
}

fn anywhere() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(tcp) = stream else { continue };
        tcp.set_nodelay(true).unwrap();
        shared.opened.fetch_add(1, Ordering::SeqCst);
        let kept = tcp.try_clone().unwrap();
        shared.streams.lock().unwrap().push(kept);
        let shared = Arc::clone(shared);
        // Ends with its connection, which the backend closes when it is dropped.
        std::thread::spawn(move || {
            serve(&tcp, &shared);
            // The clone that is kept would hold the connection open.
            let is_reset = socket2::SockRef::from(&tcp)
                .linger()
                .is_ok_and(|linger| linger.is_some());
            if is_reset {
                let peer = tcp.peer_addr();
                shared
                    .streams
                    .lock()
                    .unwrap()
                    .retain(|kept| kept.peer_addr().ok() != peer.as_ref().ok().copied());
            } else {
                let _already_closed = tcp.shutdown(Shutdown::Both);
            }
            drop(tcp);
            shared.closed.fetch_add(1, Ordering::SeqCst);
        });
    }
}

fn serve(tcp: &TcpStream, shared: &Arc<Shared>) {
    tcp.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let stream = tcp.try_clone().unwrap();
    let wire: Box<dyn Wire> = match &shared.tls {
        None => Box::new(stream),
        Some(tls) => {
            let tls = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
            Box::new(rustls::StreamOwned::new(tls, stream))
        }
    };
    let mut answering = Answering {
        head: Head::default(),
        index: 0,
        body_read: false,
        closing: false,
        shared: Arc::clone(shared),
        reader: Reader::new(wire),
        tcp: tcp.try_clone().unwrap(),
    };
    while !answering.closing
        && let Ok(Some(head)) = answering.reader.head()
    {
        answering.index = shared.keep(Seen {
            head: head.clone(),
            ..Seen::default()
        });
        answering.head = head;
        answering.body_read = false;
        (shared.script)(&mut answering);
        if !answering.body_read {
            answering.body();
        }
    }
}

impl Shared {
    /// Keeps a request, and gives its place.
    fn keep(&self, request: Seen) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(request);
        seen.len() - 1
    }
}

pub(super) fn certified(ca: &Path) -> Arc<rustls::ServerConfig> {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(ca, certificate.pem()).unwrap();

    let issuer = rcgen::Issuer::new(authority, authority_key);
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// A whole response with a body of known length.
pub(crate) fn response(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

/// `200` with `body`.
pub(crate) fn ok(body: &str) -> String {
    response("200 OK", "", body)
}
