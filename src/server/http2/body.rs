//! The body of a request, as the handler reads it.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::wire::body::{Error, Source};
use crate::wire::h2_body::{Incoming, Unread};

/// What a client sends on one stream.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) incoming: Incoming,
    /// Set when the body is first waited for, where the client waits for that.
    pub(super) waits: Option<Rc<Cell<bool>>>,
}

impl Source for Asked {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.incoming.poll(context) {
            Poll::Ready(Some(Err(Unread::Stream(_)))) => {
                // Nobody is left to be answered: whoever serves the stream ends it, and with it whoever
                // reads here.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Unread::into_error))),
            Poll::Pending => {
                if let Some(waits) = self.waits.take() {
                    waits.set(true);
                }
                Poll::Pending
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.incoming.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
