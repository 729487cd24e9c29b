//! The body of a request, read from its stream as fast as it is used.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};

use super::pump;
use crate::wire::body::{Error, Source};

/// What a client sends on one stream.
pub(super) struct Incoming {
    stream: RecvStream,
    /// What is left of its length, where that was said. `h2` holds the client to it.
    left: Option<u64>,
    stage: Stage,
    /// Set when the body is first asked for, where the client waits for that.
    asked: Option<Rc<Cell<bool>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    End,
}

impl Incoming {
    /// The body on `stream`, of `length` where that is known.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        asked: Option<Rc<Cell<bool>>>,
    ) -> Self {
        Self {
            stream,
            left: length,
            stage: Stage::Data,
            asked,
        }
    }
}

impl Source for Incoming {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.stage {
                Stage::Data => {
                    let polled = self.stream.poll_data(context);
                    if polled.is_pending()
                        && let Some(asked) = self.asked.take()
                    {
                        asked.set(true);
                    }
                    match ready!(polled) {
                        Some(Ok(data)) => {
                            // Whoever reads takes the next piece when it is done with this one.
                            let released = self.stream.flow_control().release_capacity(data.len());
                            if released.is_err() {
                                return gone(context);
                            }
                            if let Some(left) = &mut self.left {
                                *left = left.saturating_sub(data.len() as u64);
                            }
                            if !data.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::data(data))));
                            }
                        }
                        Some(Err(_)) => return gone(context),
                        None => self.stage = Stage::Trailers,
                    }
                }
                Stage::Trailers => match ready!(self.stream.poll_trailers(context)) {
                    Ok(trailers) => {
                        self.stage = Stage::End;
                        if let Some(trailers) = trailers.map(pump::passed_on) {
                            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                        }
                    }
                    Err(_) => return gone(context),
                },
                Stage::End => return Poll::Ready(None),
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.stage == Stage::End || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Nobody is left to be answered: whoever serves the stream ends it, and with it whoever reads here.
fn gone<T>(context: &Context<'_>) -> Poll<T> {
    context.waker().wake_by_ref();
    Poll::Pending
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Incoming")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
