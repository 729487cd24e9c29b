//! Messages as bytes: a head to the letter, and its body framed in one way only.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Uri, Version};
use http_body::Frame;

use super::body::Piece;
use super::framing::{self, Length};
use super::head::Reason;
use super::output::Output;

/// Frames one body.
#[derive(Debug)]
pub struct Encoder {
    length: Length,
    is_large: bool,
}

/// Bodies of at least this size are large: what pipes cost is worth it.
const LARGE: u64 = 256 << 10;

/// A body that is longer or shorter than what was said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongLength(pub &'static str);

const WRONG_LENGTH: WrongLength = WrongLength("the body is not as long as its length says");

impl Encoder {
    /// For a body of `length`.
    #[must_use]
    pub fn new(length: Length) -> Self {
        Self {
            length,
            is_large: matches!(length, Length::Exact(LARGE..)),
        }
    }

    /// Whether its pieces may come in pipes: nothing but its length is to be known of them, and there is
    /// much of it.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// When it is more than what was announced.
    pub fn piece(&mut self, piece: Piece, output: &mut Output) -> Result<(), WrongLength> {
        match piece {
            Piece::Frame(frame) => self.frame(frame, output),
            Piece::Piped(pipe) => {
                let Length::Exact(left) = &mut self.length else {
                    return Err(WRONG_LENGTH);
                };
                *left = left.checked_sub(pipe.len() as u64).ok_or(WRONG_LENGTH)?;
                output.pipe(pipe);
                Ok(())
            }
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.length == Length::Exact(0)
    }

    /// Adds a frame of the body.
    ///
    /// # Errors
    /// When it is more than what was announced.
    pub fn frame(&mut self, frame: Frame<Bytes>, output: &mut Output) -> Result<(), WrongLength> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let (Length::Chunked, Ok(trailers)) = (self.length, frame.into_trailers()) {
                    output.text().extend_from_slice(b"0\r\n");
                    for (name, value) in &trailers {
                        if framing::may_trail(name) {
                            field(output.text(), name, value.as_bytes());
                        }
                    }
                    output.text().extend_from_slice(b"\r\n");
                    self.length = Length::Exact(0);
                }
                return Ok(());
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.length {
            Length::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WRONG_LENGTH)?;
                output.push(data, b"");
            }
            Length::Chunked => {
                hex(output.text(), data.len());
                output.push(data, b"\r\n");
            }
            Length::UntilClose => output.push(data, b""),
        }
        Ok(())
    }

    /// The body gave its last frame.
    ///
    /// # Errors
    /// When it is less than what was announced.
    pub fn end(&mut self, output: &mut Output) -> Result<(), WrongLength> {
        match self.length {
            Length::Exact(0) | Length::UntilClose => {}
            Length::Exact(_) => return Err(WRONG_LENGTH),
            Length::Chunked => output.text().extend_from_slice(b"0\r\n\r\n"),
        }
        self.length = Length::Exact(0);
        Ok(())
    }
}

/// What the head of a message says of its body and its connection.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The length of its body.
    pub length: SaidLength,
    /// `Connection`, where it is not left out.
    pub connection: Option<&'static str>,
}

/// What a head says of the length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaidLength {
    /// As it is framed.
    Framed(Length),
    /// Nothing.
    Nothing,
    /// What its own fields say of a body that is not sent.
    OfAnother,
}

impl SaidLength {
    /// What the head of an answer with `headers` says of a body that is framed as `framed`, and whose
    /// length is `whole` where it is known.
    ///
    /// RFC 9110, 8.6: no interim answer and no 204 has the field; those to HEAD and 304 say what
    /// another would have had.
    #[must_use]
    pub fn of_answer(
        status: StatusCode,
        headers: &HeaderMap,
        by_head: bool,
        whole: Option<u64>,
        framed: Length,
    ) -> Self {
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return Self::Nothing;
        }
        let of_another = by_head && headers.contains_key(header::CONTENT_LENGTH);
        if of_another || status == StatusCode::NOT_MODIFIED {
            return Self::OfAnother;
        }
        match whole {
            // What a backend sends to HEAD has no body, and says nothing of the one to GET.
            None | Some(0) if by_head => Self::Nothing,
            Some(length) if by_head => Self::Framed(Length::Exact(length)),
            _ => Self::Framed(framed),
        }
    }
}

/// Writes the head of a request in origin form.
pub fn request(out: &mut BytesMut, method: &Method, uri: &Uri, headers: &HeaderMap, said: Said) {
    out.reserve(ROOM);
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        // RFC 9112, 3.2.1: an absolute target may have no path, one in origin form has.
        out.extend_from_slice(b"/");
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, headers, said);
}

/// Writes the head of a response.
pub fn response<B>(out: &mut BytesMut, response: &http::Response<B>, said: Said) {
    out.reserve(ROOM);
    let status = response.status();
    let reason = response.extensions().get();
    if status == StatusCode::OK && reason.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.extend_from_slice(b" ");
        match reason {
            Some(Reason(words)) => out.extend_from_slice(words),
            None => {
                let words = status.canonical_reason().unwrap_or_default();
                out.extend_from_slice(words.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    fields(out, response.headers(), said);
}

/// Room for most heads.
const ROOM: usize = 1 << 10;

fn fields(out: &mut BytesMut, headers: &HeaderMap, said: Said) {
    for (name, value) in headers {
        let ours = (*name == header::CONTENT_LENGTH && said.length != SaidLength::OfAnother)
            || *name == header::TRANSFER_ENCODING
            || (*name == header::CONNECTION && said.connection.is_some());
        if !ours {
            field(out, name, value.as_bytes());
        }
    }
    match said.length {
        SaidLength::Framed(Length::Exact(length)) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        SaidLength::Framed(Length::Chunked) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        SaidLength::Framed(Length::UntilClose) | SaidLength::Nothing | SaidLength::OfAnother => {}
    }
    if let Some(connection) = said.connection {
        field(out, &header::CONNECTION, connection.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn decimal(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut left = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The line before a chunk.
fn hex(out: &mut BytesMut, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[length >> (4 * digit) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

/// Whether a message of this version keeps its connection open after it, as its head says
/// (RFC 9112, 9.3).
#[must_use]
pub fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let mut keeps = version == Version::HTTP_11;
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn text(output: &Output) -> String {
        let bytes: Vec<u8> = output
            .slices()
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn heads_say_the_length_once_and_as_it_is_framed() {
        let mut given = http::Response::new(());
        *given.status_mut() = StatusCode::NOT_FOUND;
        let headers = given.headers_mut();
        headers.insert("a", HeaderValue::from_static("b"));
        headers.insert("content-length", HeaderValue::from_static("99"));
        headers.insert("transfer-encoding", HeaderValue::from_static("gzip"));
        headers.insert("connection", HeaderValue::from_static("x"));
        let check = |length, connection, expected: &str| {
            let mut out = BytesMut::new();
            response(&mut out, &given, Said { length, connection });
            let whole = format!("HTTP/1.1 404 Not Found\r\na: b\r\n{expected}\r\n");
            assert_eq!(String::from_utf8(out.to_vec()).unwrap(), whole);
        };
        check(
            SaidLength::OfAnother,
            None,
            "content-length: 99\r\nconnection: x\r\n",
        );
        check(
            SaidLength::Framed(Length::Exact(0)),
            None,
            "connection: x\r\ncontent-length: 0\r\n",
        );
        let large = "content-length: 18446744073709551615\r\nconnection: close\r\n";
        check(
            SaidLength::Framed(Length::Exact(u64::MAX)),
            Some("close"),
            large,
        );
        check(
            SaidLength::Framed(Length::Chunked),
            None,
            "connection: x\r\ntransfer-encoding: chunked\r\n",
        );
        check(
            SaidLength::Framed(Length::UntilClose),
            None,
            "connection: x\r\n",
        );
    }

    #[test]
    fn chunks_are_written_as_they_are_read() {
        let mut output = Output::default();
        let mut encoder = Encoder::new(Length::Chunked);
        for length in [1, 0, 15, 16, 255, 256, 4096] {
            let data = Bytes::from(vec![b'x'; length]);
            encoder.frame(Frame::data(data), &mut output).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        trailers.insert("content-length", HeaderValue::from_static("7"));
        trailers.insert("x_forwarded_for", HeaderValue::from_static("7"));
        encoder
            .frame(Frame::trailers(trailers), &mut output)
            .unwrap();
        assert!(encoder.is_ended());
        encoder.end(&mut output).unwrap();
        let text = text(&output).replace('x', "");
        assert_eq!(
            text.trim_start_matches(
                "1\r\n\r\nf\r\n\r\n10\r\n\r\nff\r\n\r\n100\r\n\r\n1000\r\n\r\n"
            ),
            "0\r\n-sum: 7\r\n\r\n"
        );
    }

    #[test]
    fn a_body_of_another_length_than_said_is_noticed() {
        let mut output = Output::default();
        let mut encoder = Encoder::new(Length::Exact(3));
        let data = |text: &'static str| Frame::data(Bytes::from(text));
        encoder.frame(data("ab"), &mut output).unwrap();
        assert_eq!(encoder.end(&mut output), Err(WRONG_LENGTH));
        assert_eq!(encoder.frame(data("cd"), &mut output), Err(WRONG_LENGTH));
        encoder.frame(data("c"), &mut output).unwrap();
        assert!(encoder.is_ended());
        assert_eq!(text(&output), "abc");
    }

    #[test]
    fn connections_are_kept_as_the_head_says() {
        let check = |version, connection: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert("connection", HeaderValue::from_static(connection));
            assert_eq!(
                keeps_alive(version, &headers),
                expected,
                "{version:?} {connection}"
            );
        };
        check(Version::HTTP_11, "", true);
        check(Version::HTTP_11, "x, Close", false);
        check(Version::HTTP_11, "keep-alive, close", false);
        check(Version::HTTP_10, "", false);
        check(Version::HTTP_10, "Keep-Alive", true);
    }
}
