//! A backend that speaks HTTP/2, and one whose frames are written by hand.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use super::PATIENCE;
use super::backend::certified;
use super::http2::{ACK, HEADERS, SETTINGS, block, frame};

/// A server of HTTP/2 on loopback, with a script that answers each request.
pub(crate) struct Http2Backend {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

/// What differs between such servers.
#[derive(Default)]
pub(crate) struct Offers<'a> {
    /// Where it accepts connections; none: anywhere on loopback.
    pub(crate) over: Option<std::net::TcpListener>,
    /// Where the authority of its certificate is written; none: no TLS.
    pub(crate) ca: Option<&'a Path>,
    /// What it speaks over TLS.
    pub(crate) alpn: &'a [&'a str],
    /// Requests that it takes at once on one connection; 0: any number.
    pub(crate) streams: u32,
    /// Whether it takes WebSockets.
    pub(crate) websockets: bool,
}

struct Shared {
    script: Box<Script>,
    opened: AtomicUsize,
    closed: AtomicUsize,
    streams: u32,
    websockets: bool,
    seen: Mutex<Vec<Request<()>>>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    leaving: Notify,
    cut: Notify,
}

type Answered = Pin<Box<dyn Future<Output = ()> + Send>>;
type Script = dyn Fn(Asked) -> Answered + Send + Sync;

/// One request, to be answered.
pub(crate) struct Asked {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// Which of all requests this is, from 1.
    pub(crate) number: usize,
}

impl Http2Backend {
    pub(crate) fn scripted<F>(script: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::offering(&Offers::default(), script)
    }

    pub(crate) fn offering<F>(
        offers: &Offers<'_>,
        script: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tls = offers.ca.map(|ca| {
            let mut config = (*certified(ca)).clone();
            let protocols = offers.alpn.iter();
            config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        let listener = match &offers.over {
            Some(listener) => listener.try_clone(),
            None => std::net::TcpListener::bind(("127.0.0.1", 0)),
        };
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "h2c" };
        let shared = Arc::new(Shared {
            script: Box::new(move |asked| Box::pin(script(asked))),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            streams: offers.streams,
            websockets: offers.websockets,
            seen: Mutex::default(),
            tls,
            leaving: Notify::new(),
            cut: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            // What is still being answered ends with the runtime.
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(&listener, &serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            scheme,
            shared,
            stop: Some(stop),
            running: Some(running),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn seen(&self) -> Vec<Request<()>> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Says on every connection that it takes no more requests there.
    pub(crate) fn leave(&self) {
        self.shared.leaving.notify_waiters();
    }

    /// Ends every connection without a word.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_waiters();
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            let _panicked = running.join();
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        shared.opened.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            begin(tcp, &shared).await;
            shared.closed.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn begin(tcp: TcpStream, shared: &Arc<Shared>) {
    let Some(tls) = &shared.tls else {
        return serve(tcp, shared).await;
    };
    let Ok(stream) = tls.accept(tcp).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve(stream, shared).await;
    } else {
        echo_over_http1(stream).await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Arc<Shared>) {
    let mut builder = h2::server::Builder::new();
    if shared.streams > 0 {
        builder.max_concurrent_streams(shared.streams);
    }
    if shared.websockets {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut cut = std::pin::pin!(shared.cut.notified());
    let mut leaving = std::pin::pin!(shared.leaving.notified());
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let mut head = Request::new(());
                *head.method_mut() = request.method().clone();
                *head.uri_mut() = request.uri().clone();
                *head.headers_mut() = request.headers().clone();
                let number = {
                    let mut seen = shared.seen.lock().unwrap();
                    seen.push(head);
                    seen.len()
                };
                tokio::spawn((shared.script)(Asked { request, respond, number }));
            }
            () = &mut leaving => {
                connection.graceful_shutdown();
                leaving.set(shared.leaving.notified());
            }
            () = &mut cut => return,
        }
    }
}

/// Agrees to a WebSocket and echoes, or answers that it was asked over HTTP/1.1.
async fn echo_over_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let asked = String::from_utf8_lossy(&head).to_lowercase();
        if asked.contains("upgrade: websocket") {
            let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(agreed).await.unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            let _gone = tokio::io::copy(&mut from, &mut to).await;
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nHTTP/1.1";
        stream.write_all(answer).await.unwrap();
        stream.flush().await.unwrap();
        head.clear();
    }
}

impl Asked {
    pub(crate) fn target(&self) -> String {
        self.request.uri().path().to_owned()
    }

    /// The next piece of the body; `None` at its end, and where it broke off.
    pub(crate) async fn piece(&mut self) -> Option<Bytes> {
        let body = self.request.body_mut();
        let data = body.data().await?.ok()?;
        let _closed = body.flow_control().release_capacity(data.len());
        Some(data)
    }

    /// All of the body, and its trailers.
    pub(crate) async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await {
            whole.extend_from_slice(&piece);
        }
        let trailers = self.request.body_mut().trailers().await;
        (whole, trailers.unwrap_or_default())
    }

    /// `200`, with a body to come.
    pub(crate) fn begin(&mut self) -> SendStream<Bytes> {
        self.respond
            .send_response(Response::new(()), false)
            .unwrap()
    }

    /// `200` with a whole body.
    pub(crate) fn answer(mut self, body: impl Into<Bytes>) {
        self.begin().send_data(body.into(), true).unwrap();
    }

    /// Waits until the other side resets the stream.
    pub(crate) async fn reset(&mut self) -> Reason {
        poll_fn(|context| self.respond.poll_reset(context))
            .await
            .unwrap()
    }
}

/// A server whose bytes are written by hand, after each connection's settings of HTTP/2 where `polite`.
pub(crate) struct Frames {
    pub(crate) address: SocketAddr,
    opened: Arc<AtomicUsize>,
}

impl Frames {
    /// `script` is given each connection and its number, from 1.
    pub(crate) fn scripted(
        script: impl Fn(&mut std::net::TcpStream, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let opened = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&opened);
        let script = Arc::new(script);
        // Ends with the process: it waits for a connection until then.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut stream, number));
            }
        });
        Self { address, opened }
    }

    pub(crate) fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// `:status: 200` and these fields.
pub(crate) fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    [vec![0x88], block(fields)].concat()
}

/// Says hello, and waits for the first request, whose stream it gives.
pub(crate) fn greet(stream: &mut std::net::TcpStream) -> Option<u32> {
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    next_request(stream)
}

/// Waits for the next request, and gives its stream.
pub(crate) fn next_request(stream: &mut std::net::TcpStream) -> Option<u32> {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).ok()?;
        if header[3] == SETTINGS && header[4] == 0 {
            stream.write_all(&frame(SETTINGS, ACK, 0, &[])).ok()?;
        }
        if header[3] == HEADERS {
            return Some(u32::from_be_bytes([
                header[5], header[6], header[7], header[8],
            ]));
        }
    }
}
