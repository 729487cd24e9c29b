//! Our half of a connection from a client: requests are read strictly, answers written to the letter
//! (RFC 9112). It knows no time: whoever serves the connection does.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};

use super::body::{Answer, Cut, Source, framed};
use super::clock;
use super::encode::{self, Encoder, Said, SaidLength};
use super::framing::{self, Decoder, Found, Length};
use super::head::{self, BadHead, HeadLimits, Scan};
use super::link::{Link, Transport};
use super::pipe::Turn;
use request_body::RequestBody;

mod request_body;

/// A connection from a client. The body of a request shares it.
#[derive(Debug)]
pub struct Server<S> {
    half: Rc<RefCell<Half<S>>>,
    limits: HeadLimits,
    scan: Scan,
    /// Whether nothing was read that is HTTP/1.1.
    is_fresh: bool,
    /// An empty map for the fields of the next request.
    spare: HeaderMap,
    /// What the request that is answered now says of its answer.
    asked: Asked,
}

#[derive(Debug)]
struct Half<S> {
    link: Link<S>,
    /// What is left of the request's body.
    decoder: Decoder,
    /// Whether the client waits for our word before it sends the body.
    expects: bool,
    /// Whether it has closed its half.
    ended: bool,
    /// Whether it has left: its request was cut short, or the connection broke.
    left: bool,
    /// Whether the end of the connection would be taken for that of the answer.
    ends_answer: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    version: Version,
    by_head: bool,
    /// Whether the client itself ends the connection after this request.
    wants_close: bool,
    keeps: bool,
    /// Whether the connection ends with the answer.
    ends: bool,
}

/// What there is of the next request.
#[derive(Debug)]
pub enum Next {
    /// Its head.
    Request(http::Request<()>),
    /// The preface of HTTP/2 (RFC 9113, 3.4): no byte of this connection is HTTP/1.1.
    Http2,
    /// Nothing will come any more.
    Closed,
    /// No request, and none after it: the bytes cannot be told apart.
    Refused(BadHead),
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Open,
    /// It ends; the client was told.
    Close,
    /// It ends, and the client has sent, or may still be sending, what nobody reads.
    Linger,
}

/// What is known of a client whose answer is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It waits, or sends.
    Here,
    /// It has closed its half of the connection: it sends no more, and may have left.
    Silent,
    /// It has left.
    Gone,
}
/// How a connection begins that speaks HTTP/2 from the start (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are read ahead while a request is answered.
const AHEAD: usize = 16 << 10;

impl<S: Transport + 'static> Server<S> {
    /// A connection on which nothing was read or written.
    pub fn new(stream: S, limits: HeadLimits) -> Self {
        Self {
            half: Rc::new(RefCell::new(Half {
                link: Link::new(stream),
                decoder: Decoder::new(Length::Exact(0), limits),
                expects: false,
                ended: false,
                left: false,
                ends_answer: false,
            })),
            limits,
            scan: Scan::default(),
            is_fresh: true,
            spare: HeaderMap::new(),
            asked: Asked {
                version: Version::HTTP_11,
                by_head: false,
                wants_close: false,
                keeps: true,
                ends: false,
            },
        }
    }

    /// The head of the next request.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let mut half = self.half.borrow_mut();
        while self.is_fresh {
            let input = &half.link.input;
            if input.starts_with(PREFACE) {
                return Poll::Ready(Next::Http2);
            }
            if !PREFACE.starts_with(input) {
                self.is_fresh = false;
                break;
            }
            match ready!(half.link.poll_fill(context, Some(0))) {
                Ok(0) | Err(_) => return Poll::Ready(Next::Closed),
                Ok(_) => {}
            }
        }
        loop {
            let had_line = self.scan.first_line(&half.link.input).is_some();
            let scanned = self.scan.advance(&half.link.input, &self.limits);
            // Also where it is refused: the answer to a HEAD has no body.
            self.asked.by_head = half.link.input.trim_ascii_start().starts_with(b"HEAD ");
            match scanned {
                Ok(None) if had_line => {}
                Ok(None) => {
                    // HTTP/0.9 has this one line, and then waits for its answer.
                    let line = self.scan.first_line(&half.link.input);
                    if let Some(Err(bad)) = line.map(head::request_line) {
                        return Poll::Ready(Next::Refused(bad));
                    }
                }
                Ok(Some(whole)) => {
                    self.scan = Scan::default();
                    let head = half.link.input.split_to(whole.end).freeze();
                    let read = head::request(&head, &whole, std::mem::take(&mut self.spare));
                    let begun = read.and_then(|request| {
                        self.asked = half.begin(&request, &self.limits)?;
                        Ok(request)
                    });
                    return Poll::Ready(begun.map_or_else(Next::Refused, Next::Request));
                }
                Err(bad) => return Poll::Ready(Next::Refused(bad)),
            }
            match ready!(half.link.poll_fill(context, Some(0))) {
                Ok(0) | Err(_) => return Poll::Ready(Next::Closed),
                Ok(_) => {}
            }
        }
    }

    /// Holds the heads that begin from now on to `limits`.
    pub fn hold_to(&mut self, limits: HeadLimits) {
        self.limits = limits;
    }

    /// Whether what came last is a HEAD, or begins like one.
    pub fn is_asked_by_head(&self) -> bool {
        self.asked.by_head
    }

    /// Whether nothing of the next request has arrived.
    pub fn is_idle(&self) -> bool {
        self.half.borrow().link.input.is_empty()
    }

    /// Whether bytes of the client wait to be read, also when nobody was told of them yet.
    pub fn has_unread(&self) -> bool {
        self.half.borrow().link.transport().has_unread()
    }

    /// Waits until bytes of the client, or its end, can be read. To be asked while it is
    /// [idle](Self::is_idle), and once what there was has been read.
    pub fn poll_unread(&self, context: &mut Context<'_>) -> Poll<()> {
        self.half.borrow_mut().link.poll_unread(context)
    }

    /// Says that this is the end, as [`Transport::farewell`] does.
    pub fn farewell(&mut self) {
        self.half.borrow_mut().link.farewell();
    }

    /// Gives the memory of empty buffers back.
    pub fn shrink(&mut self) {
        let link = &mut self.half.borrow_mut().link;
        link.settle();
        link.shrink();
        self.spare = HeaderMap::new();
    }

    /// The body of the request that came last; `None` where it has none.
    pub fn body(&self) -> Option<Box<dyn Source>> {
        let half = self.half.borrow();
        (!half.decoder.is_ended()).then(|| Box::new(RequestBody(Rc::clone(&self.half))) as _)
    }

    /// Whether so much was read ahead that the client must be [looked at](Self::presence) again and
    /// again: nothing tells when it leaves.
    pub fn is_full(&self) -> bool {
        self.half.borrow().link.input.len() >= AHEAD
    }

    /// What is known of the client. To be asked while its answer is not there: what it sends meanwhile
    /// is read ahead, within bounds.
    pub fn presence(&self, context: &mut Context<'_>) -> Presence {
        let mut half = self.half.borrow_mut();
        while !half.left && !half.ended && half.link.input.len() < AHEAD {
            match half.link.poll_fill(context, Some(0)) {
                Poll::Ready(Ok(0)) => {
                    half.ended = true;
                    // Whoever reads the body finds out whether it was cut short.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => half.left = true,
                Poll::Pending => break,
            }
        }
        let is_full = half.link.input.len() >= AHEAD;
        if half.left {
            Presence::Gone
        } else if half.ended || (is_full && half.link.transport().has_closed()) {
            Presence::Silent
        } else {
            Presence::Here
        }
    }

    /// Puts the head of an answer in line to be written, and says how its body is to be framed.
    /// With `last` it says that the connection ends after it.
    pub fn begin<B: Answer>(&mut self, response: &mut http::Response<B>, last: bool) -> Encoder {
        let status = response.status();
        let bodiless = self.asked.by_head || framing::is_bodiless(status);
        let whole = response.body().size_hint().exact();
        let length = if bodiless {
            Length::Exact(0)
        } else {
            match whole {
                Some(length) => Length::Exact(length),
                None if self.asked.version == Version::HTTP_10 => Length::UntilClose,
                None => Length::Chunked,
            }
        };
        // Where somebody still holds the request's body, the rest of it may yet be read.
        let given_up = Rc::strong_count(&self.half) == 1;
        let mut half = self.half.borrow_mut();
        let unread = given_up && !half.finish_body();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        self.asked.keeps &= !last
            && !unread
            && length != Length::UntilClose
            && encode::keeps_alive(Version::HTTP_11, response.headers());
        self.asked.ends = !self.asked.keeps && !switches;
        let connection = match (self.asked.keeps, self.asked.version) {
            _ if switches => None,
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        };
        let by_head = self.asked.by_head;
        let headers = response.headers_mut();
        let length_said = SaidLength::of_answer(status, headers, by_head, whole, length);
        if !headers.contains_key(header::DATE) && !status.is_informational() {
            headers.insert(header::DATE, clock::http_date());
        }
        let said = Said {
            length: length_said,
            connection,
        };
        half.expects = false;
        if length == Length::UntilClose {
            // However it is cut short, also by the end of this process, the client is to see it.
            half.ends_answer = true;
            half.link.transport().reset_on_drop(true);
        }
        encode::response(half.link.output.text(), response, said);
        // The map goes round: the fields of the next request are read into it.
        let mut spare = std::mem::take(response.headers_mut());
        spare.clear();
        self.spare = spare;
        Encoder::new(length)
    }

    /// Goes on with an answer that was begun: ready when it is written.
    ///
    /// # Errors
    /// When it must be cut off: its body broke, or the client did.
    pub fn poll_answer<B: Answer>(
        &mut self,
        body: &mut B,
        encoder: &mut Encoder,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        let mut turn = Turn::default();
        let pipes = encoder.is_large() && self.half.borrow().link.takes_pipes();
        loop {
            let mut waits = false;
            // The body may read the request's: it is polled while nothing here is borrowed.
            while !encoder.is_ended() && !waits && self.half.borrow().link.output.has_room() {
                let polled = match pipes {
                    true => body.poll_piece(context),
                    false => framed(Pin::new(&mut *body).poll_frame(context)),
                };
                match polled {
                    Poll::Ready(Some(Ok(piece))) => {
                        turn.takes(&piece);
                        let output = &mut self.half.borrow_mut().link.output;
                        encoder.piece(piece, output).map_err(|_| Cut::Body)?;
                    }
                    Poll::Ready(Some(Err(_))) => {
                        // The client gets what came before, as far as it takes it at once.
                        let _flushed = self.half.borrow_mut().link.poll_flush(context);
                        return Poll::Ready(Err(Cut::Body));
                    }
                    Poll::Ready(None) => {
                        let output = &mut self.half.borrow_mut().link.output;
                        encoder.end(output).map_err(|_| Cut::Body)?;
                    }
                    Poll::Pending => waits = true,
                }
            }
            let link = &mut self.half.borrow_mut().link;
            let written = match encoder.is_ended() && self.asked.ends {
                true => link.poll_finish(context),
                false => link.poll_flush(context),
            };
            match written {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut::Client)),
                Poll::Pending => return Poll::Pending,
            }
            if encoder.is_ended() {
                return Poll::Ready(Ok(()));
            }
            if waits || turn.is_over(context) {
                return Poll::Pending;
            }
        }
    }

    /// Bytes that were written since the connection began.
    pub fn written(&self) -> u64 {
        self.half.borrow().link.written()
    }

    /// Whether bytes wait for the client to take them.
    pub fn is_writing(&self) -> bool {
        !self.half.borrow().link.is_flushed()
    }

    /// After an answer that is written, and whose body is gone.
    pub fn after(&mut self) -> After {
        let mut half = self.half.borrow_mut();
        if std::mem::take(&mut half.ends_answer) {
            half.link.transport().reset_on_drop(false);
        }
        if !half.finish_body() {
            return After::Linger;
        }
        if self.asked.keeps {
            After::Open
        } else if self.asked.wants_close && half.link.input.is_empty() {
            After::Close
        } else {
            After::Linger
        }
    }

    /// The stream with what was read ahead; `None` where the body of a request still needs it.
    pub fn into_link(self) -> Option<Link<S>> {
        Rc::into_inner(self.half).map(|half| half.into_inner().link)
    }
}

impl<S> Half<S> {
    fn begin(
        &mut self,
        request: &http::Request<()>,
        limits: &HeadLimits,
    ) -> Result<Asked, BadHead> {
        let (version, headers) = (request.version(), request.headers());
        let length = framing::of_request(version, headers)?;
        self.decoder = Decoder::new(length, *limits);
        self.expects = version == Version::HTTP_11
            && headers.contains_key(header::EXPECT)
            && !self.decoder.is_ended();
        let keeps = encode::keeps_alive(version, headers);
        Ok(Asked {
            version,
            by_head: request.method() == Method::HEAD,
            wants_close: !keeps,
            keeps,
            ends: false,
        })
    }

    /// Whether the body of the request ends within what is here already.
    fn finish_body(&mut self) -> bool {
        while let Ok(Found::Data(_) | Found::Trailers(_)) =
            self.decoder.decode(&mut self.link.input)
        {}
        self.decoder.is_ended()
    }
}
