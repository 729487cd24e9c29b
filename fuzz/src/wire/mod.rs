//! The same bytes, read by us and by hyper.

pub mod ours;
pub mod pieces;
pub mod theirs;

use bytes::Bytes;
use http::HeaderMap;

/// One message as a reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What its first line says.
    pub line: String,
    /// Its fields.
    pub fields: HeaderMap,
    /// What there is of its body.
    pub body: Vec<u8>,
    /// The fields after its body.
    pub trailers: HeaderMap,
    /// Whether it was read to its end.
    pub whole: bool,
}

/// Why a reader stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The bytes ended, maybe in the middle of a message.
    Bytes,
    /// It reads no further: the connection carries nothing after the last message.
    Connection,
    /// What comes next is malformed.
    Refused(String),
}

/// What a reader made of the bytes of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The messages, in order. All but the last are whole.
    pub messages: Vec<Message>,
    /// What came then.
    pub end: End,
}

impl Message {
    fn of_request<B>(request: &http::Request<B>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let line = format!("{method} {uri:?} {:?}", request.version());
        Self::begun(line, request.headers())
    }

    fn of_response<B>(response: &http::Response<B>) -> Self {
        let line = format!("{:?} {}", response.version(), response.status().as_u16());
        Self::begun(line, response.headers())
    }

    fn begun(line: String, fields: &HeaderMap) -> Self {
        Self {
            line,
            fields: fields.clone(),
            body: Vec::new(),
            trailers: HeaderMap::new(),
            whole: false,
        }
    }

    fn add(&mut self, frame: hyper::body::Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.body.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
}

impl Reading {
    /// Whether it ended in a refusal.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.end, End::Refused(_))
    }

    /// Whether both read the same, whatever words a refusal has, and however early it comes: a head
    /// that has no end yet may be refused at its first byte.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let in_body = self.messages.last().is_some_and(|last| !last.whole);
        let ends = (self.end == End::Connection, other.end == End::Connection);
        self.messages == other.messages
            && ends.0 == ends.1
            && (!in_body || self.is_refused() == other.is_refused())
    }
}

/// Holds our reading against hyper's: what we take, hyper reads as the same messages; and where we
/// refuse nothing, it reads no others.
///
/// # Errors
/// What the difference is.
pub fn compare(ours: &Reading, theirs: &Reading) -> Result<(), String> {
    for (index, our) in ours.messages.iter().enumerate() {
        let Some(their) = theirs.messages.get(index) else {
            if has_no_number_of_hyper(our) {
                return Ok(());
            }
            return Err(format!("hyper reads no message {index}"));
        };
        if our.line != their.line || our.fields != as_passed_on(&their.fields) {
            return Err(format!("the head of message {index} differs"));
        }
        if our.whole {
            if !their.whole {
                return Err(format!("hyper finds no end of message {index}"));
            }
            if our.body != their.body || our.trailers != their.trailers {
                return Err(format!("the body of message {index} differs"));
            }
        }
        let shorter = our.body.len().min(their.body.len());
        if our.body[..shorter] != their.body[..shorter] {
            return Err(format!("the body of message {index} differs in its middle"));
        }
    }
    if ours.end == End::Bytes {
        if theirs.messages.len() > ours.messages.len() {
            return Err("hyper reads one more message".to_owned());
        }
        let whole = |reading: &Reading| reading.messages.last().map(|message| message.whole);
        if whole(ours) != whole(theirs) {
            return Err("hyper finds an end of the last message".to_owned());
        }
    }
    Ok(())
}

/// hyper keeps the two largest numbers for itself: a length that is one of them it refuses.
fn has_no_number_of_hyper(message: &Message) -> bool {
    let length = message.fields.get(http::header::CONTENT_LENGTH);
    let digits = length.and_then(|length| length.to_str().ok());
    digits.is_some_and(|digits| {
        digits
            .parse()
            .is_ok_and(|length: u64| length > u64::MAX - 2)
    })
}

/// The fields as we give them on: one length, and none beside a transfer coding. hyper gives them as
/// they came.
fn as_passed_on(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    if fields.contains_key(http::header::TRANSFER_ENCODING) {
        fields.remove(http::header::CONTENT_LENGTH);
    } else if let Some(length) = fields.remove(http::header::CONTENT_LENGTH) {
        fields.insert(http::header::CONTENT_LENGTH, length);
    }
    fields
}
