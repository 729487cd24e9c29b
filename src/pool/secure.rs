//! A TLS connection that never calls a write failed of which bytes have left.
//!
//! Whoever sends a request again must know that nothing of it arrived. TLS may send several records
//! for one write and fail in between; it reports a failure then, although the first ones are gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS over `S`.
#[derive(Debug)]
pub(super) struct Secure<S> {
    tls: TlsStream<Counted<S>>,
    /// What ended it after a write that was partly sent: whatever is written next meets it.
    failure: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secure<S> {
    /// Agrees on keys with the server at the other end of `stream`, which must be `name`.
    pub(super) async fn connect(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: S,
    ) -> io::Result<Self> {
        let counted = Counted { stream, sent: 0 };
        let tls = TlsConnector::from(Arc::clone(config))
            .connect(name, counted)
            .await?;
        Ok(Self { tls, failure: None })
    }

    /// What was agreed on speaking.
    pub(super) fn agreed(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }

    /// Writes `length` bytes as `write` does. A failure after some of them were sent is kept for the
    /// next time: this time they count as written.
    fn poll_write_counted(
        &mut self,
        length: usize,
        write: impl FnOnce(Pin<&mut TlsStream<Counted<S>>>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let before = self.tls.get_ref().0.sent;
        match write(Pin::new(&mut self.tls)) {
            Poll::Ready(Err(failure)) if self.tls.get_ref().0.sent != before => {
                self.failure = Some(failure);
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secure<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_counted(data.len(), |tls| tls.poll_write(context, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum();
        self.poll_write_counted(length, |tls| tls.poll_write_vectored(context, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.failure.take() {
            Some(failure) => Poll::Ready(Err(failure)),
            None => Pin::new(&mut self.tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// A stream that counts what it was given and took.
#[derive(Debug)]
struct Counted<S> {
    stream: S,
    sent: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> Counted<S> {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = written {
            self.sent += written as u64;
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Takes so many bytes more, and then fails.
    struct Failing {
        stream: DuplexStream,
        room: Rc<Cell<usize>>,
    }

    impl AsyncRead for Failing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Failing {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            let room = self.room.get().min(data.len());
            if room == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let written =
                std::task::ready!(Pin::new(&mut self.stream).poll_write(context, &data[..room]))?;
            self.room.set(self.room.get() - written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    /// Both configurations, for `localhost`.
    fn configs() -> (Arc<ClientConfig>, Arc<rustls::ServerConfig>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        (Arc::new(client), Arc::new(server))
    }

    /// Writes 40 KB, three records, over a connection that fails after `room` bytes.
    async fn write_with(room: usize) -> [io::Result<usize>; 2] {
        let (client, server) = configs();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let left = Rc::new(Cell::new(usize::MAX));
        let ours = Failing {
            stream: ours,
            room: Rc::clone(&left),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let acceptor = TlsAcceptor::from(server);
        let (secure, accepted) = tokio::join!(
            Secure::connect(&client, name, ours),
            acceptor.accept(theirs)
        );
        let (mut secure, mut accepted) = (secure.unwrap(), accepted.unwrap());
        secure.write_all(b"hello").await.unwrap();
        accepted.read_exact(&mut [0; 5]).await.unwrap();
        left.set(room);
        let data = vec![b'x'; 40_000];
        [secure.write(&data).await, secure.write(&data).await]
    }

    #[tokio::test]
    async fn a_write_of_which_a_part_has_left_counts_as_written_and_the_next_one_fails() {
        let [first, second] = write_with(20_000).await;
        assert_eq!(first.unwrap(), 40_000);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_write_of_which_nothing_has_left_fails() {
        let [first, second] = write_with(0).await;
        assert!(first.is_err() && second.is_err());
    }
}
