//! The body of a request, read off the connection that its answer goes to.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Half;
use crate::wire::body::{self, Piece, Polled, Source, framed};
use crate::wire::framing::{BadFraming, Found};
use crate::wire::link::Carrier;
use crate::wire::pipe::Pipe;

/// The body of a request, as long as it is read.
pub(super) struct RequestBody<S>(pub(super) Rc<RefCell<Half<S>>>);

impl<S: Carrier> Source for RequestBody<S> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        match self.poll_pipe(context) {
            Poll::Ready(Some(pipe)) => Poll::Ready(Some(Ok(Piece::Piped(pipe)))),
            Poll::Ready(None) => framed(self.poll_frame(context)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
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
                half.leave(context);
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

impl<S: Carrier> RequestBody<S> {
    /// The next bytes in a pipe; `None` where they are to be read.
    fn poll_pipe(&self, context: &mut Context<'_>) -> Poll<Option<Pipe>> {
        let mut half = self.0.borrow_mut();
        // Who reads sees to what is to be written before, such as leave to send.
        let is_here = !half.left && !half.expects && half.link.is_flushed();
        let Some(left @ 1..) = half.decoder.left().filter(|_| is_here) else {
            return Poll::Ready(None);
        };
        match ready!(half.link.poll_pipe(context, left)) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(pipe)) if !pipe.is_empty() => {
                half.decoder.passed(pipe.len());
                Poll::Ready(Some(pipe))
            }
            Ok(Some(_)) | Err(_) => {
                half.leave(context);
                Poll::Pending
            }
        }
    }
}

impl<S> Half<S> {
    /// Nobody is left to be answered: whoever serves the connection ends it, and with it whoever reads
    /// here.
    fn leave(&mut self, context: &Context<'_>) {
        self.left = true;
        context.waker().wake_by_ref();
    }
}

impl<S> std::fmt::Debug for RequestBody<S> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("RequestBody")
    }
}
