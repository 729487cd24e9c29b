//! The two halves of a stream of HTTP/2 as one stream of bytes, for what follows an extended CONNECT
//! (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2_body::{poll_room, to_io};

/// The other side of a tunnel. Dropped before both halves have ended, it is reset.
#[derive(Debug)]
pub struct Ends {
    from: RecvStream,
    to: SendStream<Bytes>,
    /// What came and was not read yet.
    ahead: Bytes,
    is_shut: bool,
}

/// Bytes that are put in line at once.
const PIECE: usize = 16 << 10;

impl Ends {
    /// What comes `from` the other side, and goes `to` it.
    #[must_use]
    pub fn new(from: RecvStream, to: SendStream<Bytes>) -> Self {
        Self {
            from,
            to,
            ahead: Bytes::new(),
            is_shut: false,
        }
    }
}

impl AsyncRead for Ends {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ahead.is_empty() {
            match ready!(this.from.poll_data(context)) {
                Some(data) => this.ahead = data.map_err(to_io)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead.split_to(length));
        // It fails where the stream is over, and then there is nothing to give back.
        let _released = this.from.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ends {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = data.len().min(PIECE);
        ready!(poll_room(&mut this.to, wanted, context)).map_err(to_io)?;
        let length = this.to.capacity().min(wanted);
        let piece = Bytes::copy_from_slice(&data[..length]);
        let sent = this.to.send_data(piece, false);
        Poll::Ready(sent.map(|()| length).map_err(to_io))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.is_shut, true) {
            return Poll::Ready(Ok(()));
        }
        let sent = this.to.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(to_io))
    }
}
