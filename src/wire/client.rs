//! Our half of a connection to a server: one request at a time, read and written in the task that
//! asks (RFC 9112).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::Request;
use super::body::{self, Body, Piece, Polled};
use super::encode::{self, Encoder, Said, SaidLength, WrongLength};
use super::framing::{self, BadFraming, Decoder, Found, Length};
use super::head::{self, BadHead, HeadLimits, Scan};
use super::link::{Carrier, Link};
use super::pipe::Turn;

/// A connection to a server.
#[derive(Debug)]
pub struct Client<S> {
    link: Link<S>,
    /// What is left of the request.
    upload: Option<Upload>,
    /// What is left of the response.
    decoder: Decoder,
    /// Whether the request is still being written. Not any more once either end broke: then what is
    /// left of it must never look whole to the server.
    sending: bool,
    /// Whether the connection may carry another request after this one.
    keeps: bool,
    /// What was written before this request.
    before: u64,
}

#[derive(Debug)]
struct Upload {
    body: Body,
    encoder: Encoder,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body of the request ended before its end: the fault is of whoever made it.
    #[error("the request's body failed")]
    RequestBody(#[source] body::Error),
    /// The connection ended before the head of a response, or broke.
    #[error("the connection broke off")]
    BrokenOff(#[source] io::Error),
    /// What came is no head of a response.
    #[error("the response is malformed")]
    Malformed(#[from] BadHead),
}

/// How large the head of a response may be, and its trailers.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 << 10,
    fields: 256,
};

const CUT_HEAD: BadHead = BadHead::Malformed("it was cut off in its head");

/// Interim responses to one request: more of them are an attack.
const MAX_INTERIM: u32 = 16;

impl<S: Carrier> Client<S> {
    /// A connection that has carried nothing yet.
    pub fn new(stream: S) -> Self {
        Self {
            link: Link::new(stream),
            upload: None,
            decoder: Decoder::new(Length::Exact(0), LIMITS),
            sending: false,
            keeps: true,
            before: 0,
        }
    }

    /// Whether it may carry another request: done with this one, and with nothing unread that could
    /// be taken for the next response.
    pub fn is_free(&self) -> bool {
        self.keeps && !self.sending && self.decoder.is_ended() && self.link.input.is_empty()
    }

    /// Whether it is still open and silent after a pause.
    pub fn is_quiet(&mut self) -> bool {
        self.link.is_quiet()
    }

    /// Whether not a byte of the request was written.
    pub fn is_unsent(&self) -> bool {
        self.link.written() == self.before
    }

    /// Takes over a request of which `other` wrote nothing.
    pub fn take_over(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.link.output, &mut other.link.output);
        self.upload = other.upload.take();
        self.start();
    }

    /// Puts the head of `request` in line to be written and takes its body; says itself how that is
    /// framed.
    pub fn begin(&mut self, request: &mut Request) {
        self.start();
        let body = std::mem::take(request.body_mut());
        let length = body
            .size_hint()
            .exact()
            .map_or(Length::Chunked, Length::Exact);
        let said = Said {
            // RFC 9110, 8.6: nothing is said of a body that none expects.
            length: if length == Length::Exact(0) && !expects_body(request.method()) {
                SaidLength::Nothing
            } else {
                SaidLength::Framed(length)
            },
            connection: None,
        };
        encode::request(
            self.link.output.text(),
            request.method(),
            request.uri(),
            request.headers(),
            said,
        );
        self.upload = (length != Length::Exact(0)).then(|| Upload {
            body,
            encoder: Encoder::new(length),
        });
    }

    fn start(&mut self) {
        self.before = self.link.written();
        self.sending = true;
        self.keeps = true;
    }

    /// Writes the request that was begun and reads the head of its response. Its fields go into the
    /// map of the request, `sent`: after [`Error::BrokenOff`] that is still as it was. The body of the
    /// request goes on beside that of the response.
    ///
    /// # Errors
    /// When no response came.
    pub async fn response(
        &mut self,
        to_head: bool,
        sent: &mut HeaderMap,
    ) -> Result<http::Response<()>, Error> {
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let whole = match poll_fn(|context| self.poll_head(&mut scan, context)).await {
                // It has read the request and begun to answer: there is no going back.
                Err(Error::BrokenOff(_)) if interim > 0 => return Err(CUT_HEAD.into()),
                read => read?,
            };
            scan = Scan::default();
            let head = self.link.input.split_to(whole.end).freeze();
            let mut spare = std::mem::take(sent);
            spare.clear();
            let mut response = head::response(&head, &whole, spare)?;
            let status = response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                self.expect_body(&mut response, to_head)?;
                return Ok(response);
            }
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(BadHead::Malformed("there is no end of interim responses").into());
            }
        }
    }

    fn poll_head(
        &mut self,
        scan: &mut Scan,
        context: &mut Context<'_>,
    ) -> Poll<Result<head::Whole, Error>> {
        // A server may answer, and close, before it has read everything: what it says comes first.
        // Where writing is over because the connection broke, reading says so too.
        match self.poll_upload(context) {
            Poll::Ready(Err(error @ Error::RequestBody(_))) => return Poll::Ready(Err(error)),
            Poll::Ready(_) | Poll::Pending => {}
        }
        loop {
            if let Some(whole) = scan.advance(&self.link.input, &LIMITS)? {
                return Poll::Ready(Ok(whole));
            }
            let error = match ready!(self.link.poll_fill(context, Some(0))) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            if !self.link.input.is_empty() {
                return Poll::Ready(Err(CUT_HEAD.into()));
            }
            return Poll::Ready(Err(Error::BrokenOff(error)));
        }
    }

    fn expect_body(
        &mut self,
        response: &mut http::Response<()>,
        to_head: bool,
    ) -> Result<(), BadHead> {
        let (status, version) = (response.status(), response.version());
        let headers = response.headers_mut();
        let length = framing::of_response(status, version, headers, to_head)?;
        // RFC 9112, 6.3: both fields may be an attempt at smuggling, so what follows the body is not
        // trusted to be the next response.
        let twice = headers.contains_key(header::TRANSFER_ENCODING)
            && headers.contains_key(header::CONTENT_LENGTH);
        self.keeps &= encode::keeps_alive(version, headers)
            && !twice
            && length != Length::UntilClose
            && status != StatusCode::SWITCHING_PROTOCOLS
            && version == Version::HTTP_11;
        if !self.sending {
            // It broke, and is of no use to anybody: whoever waits for its end is not kept waiting.
            self.upload = None;
        }
        // The client gets one length, or none.
        if twice {
            headers.remove(header::CONTENT_LENGTH);
        } else if let Some(equal) = headers.get_all(header::CONTENT_LENGTH).iter().nth(1) {
            let one = equal.clone();
            headers.insert(header::CONTENT_LENGTH, one);
        }
        self.decoder = Decoder::new(length, LIMITS);
        Ok(())
    }

    /// Goes on with the request: ready when it is written, or broken.
    ///
    /// # Errors
    /// When either end broke. Nothing more of it is written then, and it never looks whole.
    pub fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.sending {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.poll_send(context));
        self.sending = false;
        if sent.is_err() {
            self.keeps = false;
        }
        Poll::Ready(sent)
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let wrong = |error: WrongLength| Error::RequestBody(body::Error::Malformed(error.0));
        let mut turn = Turn::default();
        loop {
            let mut waits = false;
            while let Some(upload) = &mut self.upload
                && !waits
                && self.link.output.has_room()
            {
                let polled = match upload.encoder.is_large() && self.link.takes_pipes() {
                    true => upload.body.poll_piece(context),
                    false => body::framed(Pin::new(&mut upload.body).poll_frame(context)),
                };
                match polled {
                    Poll::Ready(Some(piece)) => {
                        let piece = piece.map_err(Error::RequestBody)?;
                        turn.takes(&piece);
                        let framed = upload.encoder.piece(piece, &mut self.link.output);
                        framed.map_err(wrong)?;
                    }
                    Poll::Ready(None) => {
                        upload.encoder.end(&mut self.link.output).map_err(wrong)?;
                    }
                    Poll::Pending => waits = true,
                }
                if upload.encoder.is_ended() {
                    self.upload = None;
                }
            }
            ready!(self.link.poll_flush(context)).map_err(Error::BrokenOff)?;
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            if waits || turn.is_over(context) {
                return Poll::Pending;
            }
        }
    }

    /// The next piece of the response's body, for whoever takes pipes too. Goes on with the request's
    /// meanwhile.
    ///
    /// # Errors
    /// When it is cut off or not framed as it must be.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        if let Some(left @ 1..) = self.decoder.left() {
            let _progress = self.poll_upload(context);
            match ready!(self.link.poll_pipe(context, left)) {
                Ok(Some(pipe)) if pipe.is_empty() => return Poll::Ready(Some(Err(cut_off()))),
                Ok(Some(pipe)) => {
                    self.decoder.passed(pipe.len());
                    return Poll::Ready(Some(Ok(Piece::Piped(pipe))));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(body::Error::Broken(error)))),
            }
        }
        body::framed(self.poll_frame(context))
    }

    /// The next frame of the response's body. Goes on with the request's meanwhile.
    ///
    /// # Errors
    /// When it is cut off or not framed as it must be.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        // The server need not take all of the request, and its answer stands whatever becomes of that.
        let _progress = self.poll_upload(context);
        loop {
            match self.decoder.decode(&mut self.link.input) {
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
            let expected = self.decoder.left();
            match ready!(self.link.poll_fill(context, expected)) {
                Ok(0) if self.decoder.close() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(cut_off()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(body::Error::Broken(error)))),
            }
        }
    }

    /// Whether the response was read to its end.
    pub fn is_ended(&self) -> bool {
        self.decoder.is_ended()
    }

    /// What is known of the length of the response's body.
    pub fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Gives the memory of its buffers back.
    pub fn shrink(&mut self) {
        self.link.shrink();
    }

    /// The stream, after another protocol was agreed on, with what was read ahead.
    pub fn into_link(self) -> Link<S> {
        self.link
    }
}

fn cut_off() -> body::Error {
    body::Error::Broken(io::ErrorKind::UnexpectedEof.into())
}

fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests;
