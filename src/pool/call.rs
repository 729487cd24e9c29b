//! One request over a connection that is shared, and its response.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::client::ResponseFuture;
use http::header::{self, HeaderMap};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::Error;
use super::origin::Origin;
use super::shared::Carried;
use super::websocket::{self, Through};
use crate::wire::body::{self, Sent, Source};
use crate::wire::framing::{self, Length};
use crate::wire::h2_body::{self, Incoming, Outgoing, Unread, Unsent};
use crate::wire::h2_tunnel::Ends;
use crate::wire::head::BadHead;
use crate::wire::tunnel::Tunnel;
use crate::wire::{Body, Request, Response};

/// Fields that a response may have, and its trailers, as over HTTP/1.1.
const MAX_FIELDS: usize = 256;

/// Interim responses to one request: more of them are an attack.
const MAX_INTERIM: u32 = 16;

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server has not looked at the request, by its own word or because nothing of it was written
    /// (RFC 9113, 8.7): it may be sent again.
    Unprocessed(io::Error),
    /// The connection ended, and nobody knows what became of the request.
    BrokenOff(io::Error),
    /// The server ended the request, or the connection after it had begun to answer.
    Ended(io::Error),
    /// What came is no response.
    Malformed(BadHead),
    /// The body of the request failed.
    RequestBody(body::Error),
}

impl Failure {
    pub(super) fn into_error(self, origin: &Origin) -> Error {
        let origin = origin.clone();
        match self {
            Self::Unprocessed(source) | Self::BrokenOff(source) | Self::Ended(source) => {
                Error::Broken { origin, source }
            }
            Self::Malformed(source) => Error::Malformed { origin, source },
            Self::RequestBody(error) => Error::RequestBody(error),
        }
    }
}

/// Sends `request` and gives its response as soon as the head of that is here.
///
/// # Errors
/// When no response came. After [`Failure::Unprocessed`] the request is as it was.
pub(super) async fn call(
    carried: Carried,
    origin: &Origin,
    request: &mut Request,
) -> Result<Response, Failure> {
    let body = std::mem::take(request.body_mut());
    let length = body.size_hint().exact();
    let head = head(origin, request, length)?;
    let to_head = request.method() == Method::HEAD;
    let before = carried.shared().traffic().written();
    let ends = length == Some(0);
    let (response, stream) = match carried.shared().sender().send_request(head, ends) {
        Ok(begun) => begun,
        Err(error) => {
            *request.body_mut() = body;
            return Err(Failure::Unprocessed(h2_body::to_io(error)));
        }
    };
    let mut call = Call {
        response,
        upload: (!ends).then(|| Outgoing::new(body, stream, length).keeping()),
        interim: 0,
        carried,
    };
    let answered = poll_fn(|context| call.poll_response(context)).await;
    let unwritten = call.carried.shared().traffic().written() == before;
    match answered {
        Ok(response) => call.answer(response, to_head),
        Err(failure) => {
            let failure = match failure {
                // It has read the request and begun to answer: there is no going back.
                Failure::Unprocessed(error) | Failure::BrokenOff(error) if call.interim > 0 => {
                    Failure::Ended(error)
                }
                Failure::BrokenOff(error) if unwritten => Failure::Unprocessed(error),
                other => other,
            };
            let Failure::Unprocessed(error) = failure else {
                return Err(failure);
            };
            Err(match call.take_back() {
                Some(body) => {
                    *request.body_mut() = body;
                    Failure::Unprocessed(error)
                }
                None => Failure::Ended(error),
            })
        }
    }
}

/// Asks for a WebSocket as HTTP/2 does it (RFC 8441), where `request` does as HTTP/1.1 does it, and
/// answers likewise.
///
/// # Errors
/// When no response came.
pub(super) async fn websocket(
    carried: Carried,
    origin: &Origin,
    request: &Request,
) -> Result<Response, Failure> {
    let mut head = head(origin, request, None)?;
    *head.method_mut() = Method::CONNECT;
    let protocol = h2::ext::Protocol::from_static(websocket::WEBSOCKET);
    head.extensions_mut().insert(protocol);
    let key = head.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    let begun = carried.shared().sender().send_request(head, false);
    let (response, mut stream) =
        begun.map_err(|error| Failure::Unprocessed(h2_body::to_io(error)))?;
    let mut call = Call {
        response,
        upload: None,
        interim: 0,
        carried,
    };
    let response = poll_fn(|context| call.poll_response(context)).await?;
    if !response.status().is_success() {
        // There is no tunnel, so there is no more to send.
        let _ended = stream.send_data(Bytes::new(), true);
        return call.answer(response, false);
    }
    check_fields(response.headers())?;
    let (mut parts, received) = response.into_parts();
    parts.version = Version::HTTP_11;
    websocket::agree(&mut parts, key.as_ref());
    let tunnel = Tunnel::new(Through::new(Ends::new(received, stream), call.carried));
    Ok(Response::from_parts(parts, Body::Tunnel(tunnel)))
}

/// The head of `request` as HTTP/2 has it (RFC 9113, 8.3.1), with `length` said of its body.
fn head(
    origin: &Origin,
    request: &Request,
    length: Option<u64>,
) -> Result<http::Request<()>, Failure> {
    let wrong = || Failure::Malformed(BadHead::Malformed("the target is none of HTTP/2"));
    let mut headers = request.headers().clone();
    let host = headers.remove(header::HOST);
    let host = host.as_ref().unwrap_or_else(|| origin.authority());
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| wrong())?;
    h2_body::remove_connection_specific(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let expects_body = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if let Some(length) = length
        && (length > 0 || expects_body)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let target = request.uri().path_and_query();
    let target = match target.map(PathAndQuery::as_str) {
        Some(text) if text.starts_with('?') => {
            PathAndQuery::try_from(format!("/{text}")).map_err(|_| wrong())?
        }
        Some(_) => target.cloned().unwrap_or(PathAndQuery::from_static("/")),
        None => PathAndQuery::from_static("/"),
    };
    let uri = Uri::builder()
        .scheme(origin.scheme().as_str())
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|_| wrong())?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = headers;
    Ok(head)
}

/// A request on its way. Dropped, its stream is reset.
struct Call {
    response: ResponseFuture,
    upload: Option<Outgoing<Body>>,
    interim: u32,
    carried: Carried,
}

impl Call {
    fn poll_response(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<http::Response<h2::RecvStream>, Failure>> {
        // A server may answer, and end the stream, before it has read everything: what it says comes
        // first.
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(Err(Unsent::Body(error))) = upload.poll(context)
        {
            return Poll::Ready(Err(Failure::RequestBody(error)));
        }
        while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(context) {
            self.interim += 1;
            // RFC 9113, 8.6: there is no switch of protocols in HTTP/2.
            if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(malformed("it switches protocols, which HTTP/2 cannot"));
            }
            if self.interim > MAX_INTERIM {
                return Poll::Ready(malformed("there is no end of interim responses"));
            }
        }
        let response = ready!(Pin::new(&mut self.response).poll(context));
        Poll::Ready(response.map_err(failure))
    }

    /// The body of the request, where all of it is still known.
    fn take_back(&mut self) -> Option<Body> {
        match &mut self.upload {
            Some(upload) => {
                let (body, taken) = upload.take_back()?;
                body.unread(taken)
            }
            None => Some(Body::Empty),
        }
    }

    fn answer(
        mut self,
        response: http::Response<h2::RecvStream>,
        to_head: bool,
    ) -> Result<Response, Failure> {
        self.carried.shared().traffic().was_useful();
        let (mut parts, stream) = response.into_parts();
        check_fields(&parts.headers)?;
        let length = framing::of_response(parts.status, parts.version, &parts.headers, to_head)
            .map_err(Failure::Malformed)?;
        one_length(&mut parts.headers);
        let length = match length {
            Length::Exact(length) => Some(length),
            Length::Chunked | Length::UntilClose => None,
        };
        if let Some(upload) = &mut self.upload {
            upload.let_go();
        }
        // Whoever asked asked in HTTP/1.1, and is answered in it.
        parts.version = Version::HTTP_11;
        let body = Body::Sent(Sent::new(Box::new(Answer {
            incoming: Incoming::new(stream, length, MAX_FIELDS),
            upload: self.upload,
            carried: self.carried,
        })));
        Ok(Response::from_parts(parts, body))
    }
}

fn check_fields(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.len() > MAX_FIELDS {
        return Err(Failure::Malformed(BadHead::TooManyFields));
    }
    if !headers.keys().all(framing::is_token) {
        return malformed("a name of it is no token");
    }
    Ok(())
}

fn malformed<T>(what: &'static str) -> Result<T, Failure> {
    Err(Failure::Malformed(BadHead::Malformed(what)))
}

/// Of a length that is said twice, one is passed on.
fn one_length(headers: &mut HeaderMap) {
    if let Some(equal) = headers.get_all(header::CONTENT_LENGTH).iter().nth(1) {
        let one = equal.clone();
        headers.insert(header::CONTENT_LENGTH, one);
    }
}

fn failure(error: h2::Error) -> Failure {
    if error.is_library() {
        return Failure::Malformed(BadHead::Malformed("it breaks the rules of HTTP/2"));
    }
    // RFC 9113, 8.7: a stream above the last one that a GOAWAY names, and those alone end by it.
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let unprocessed = error.is_remote() && (error.is_go_away() || refused);
    let is_reset = error.is_reset();
    let error = h2_body::to_io(error);
    if unprocessed {
        Failure::Unprocessed(error)
    } else if is_reset {
        Failure::Ended(error)
    } else {
        Failure::BrokenOff(error)
    }
}

/// The body of a response, and what is left of its request beside it.
#[derive(Debug)]
struct Answer {
    incoming: Incoming,
    upload: Option<Outgoing<Body>>,
    /// Dropped last: the stream is over when its place is free.
    carried: Carried,
}

impl Source for Answer {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        self.poll_upload(context);
        let frame = ready!(self.incoming.poll(context));
        self.carried.shared().traffic().was_useful();
        Poll::Ready(frame.map(|frame| frame.map_err(Unread::into_error)))
    }

    fn is_ended(&self) -> bool {
        self.incoming.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) {
        // The server need not take all of the request, and its answer stands whatever becomes of that.
        if let Some(upload) = &mut self.upload
            && upload.poll(context).is_ready()
        {
            self.upload = None;
        }
    }
}
