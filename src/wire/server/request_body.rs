//! The body of a request, read off the connection that its answer goes to.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Half;
use crate::wire::body::{self, Source};
use crate::wire::framing::{BadFraming, Found};

/// The body of a request, as long as it is read.
pub(super) struct RequestBody<S>(pub(super) Rc<RefCell<Half<S>>>);

impl<S: AsyncRead + AsyncWrite + Unpin> Source for RequestBody<S> {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let mut half = self.0.borrow_mut();
        let half = &mut *half;
        loop {
            match half.decoder.decode(&mut half.link.input) {
                Ok(Found::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Found::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Found::End) => return Poll::Ready(None),
                Ok(Found::More) => {}
                Err(BadFraming(what)) => {
                    return Poll::Ready(Some(Err(body::Error::Malformed(what))));
                }
            }
            if half.left {
                return Poll::Pending;
            }
            if std::mem::take(&mut half.expects) {
                // RFC 9110, 10.1.1: the client has waited for this with its body.
                let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
                half.link.output.text().extend_from_slice(go_on);
            }
            let flushed = half.link.poll_flush(context);
            let expected = half.decoder.left();
            let filled = ready!(half.link.poll_fill(context, expected));
            let broken = matches!(flushed, Poll::Ready(Err(_)));
            if broken || matches!(filled, Ok(0) | Err(_)) {
                // Nobody is left to be answered: whoever serves the connection ends it, and with it
                // whoever reads here.
                half.left = true;
                context.waker().wake_by_ref();
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.0.borrow().decoder.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().decoder.size_hint()
    }
}

impl<S> std::fmt::Debug for RequestBody<S> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("RequestBody")
    }
}
