//! Where a body ends (RFC 9112, 6 and 7): what the head says of it, and the reading of it.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode, Version};
use http_body::SizeHint;
use memchr::memchr;

use super::head::{self, BadHead, HeadLimits, Scan};

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; with 0 there is none.
    Exact(u64),
    /// As its chunks say.
    Chunked,
    /// Until the connection ends. Only responses can have that.
    UntilClose,
}

const TWICE: BadHead =
    BadHead::Malformed("the length of the body is given more than once, or in two ways");
const LENGTH: BadHead = BadHead::Malformed("the length of the body is no number");
const CODING: BadHead =
    BadHead::Malformed("the transfer coding of the body is not to be relied on");

/// The length of a request's body (RFC 9112, 6.3).
///
/// # Errors
/// When it can be read in two ways.
pub fn of_request(version: Version, headers: &HeaderMap) -> Result<Length, BadHead> {
    let declared = headers.get(header::CONTENT_LENGTH);
    let Some(coding) = headers.get(header::TRANSFER_ENCODING) else {
        let Some(declared) = declared else {
            return Ok(Length::Exact(0));
        };
        if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
            return Err(TWICE);
        }
        return number(declared).map(Length::Exact).ok_or(LENGTH);
    };
    if declared.is_some() {
        return Err(TWICE);
    }
    chunked(version, headers, coding)
}

/// The length of a response's body to a request that was HEAD or not (RFC 9112, 6.3).
///
/// Where both fields are there the coding counts; the caller must not trust the connection after it.
///
/// # Errors
/// When it can be read in two ways.
pub fn of_response(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    to_head: bool,
) -> Result<Length, BadHead> {
    let declared = match headers.get(header::CONTENT_LENGTH) {
        Some(first) => {
            let mut all = headers.get_all(header::CONTENT_LENGTH).iter();
            if all.any(|other| other != first) {
                return Err(TWICE);
            }
            Some(number(first).ok_or(LENGTH)?)
        }
        None => None,
    };
    let coding = headers.get(header::TRANSFER_ENCODING);
    let coded = coding
        .map(|coding| chunked(version, headers, coding))
        .transpose()?;
    if to_head || is_bodiless(status) {
        return Ok(Length::Exact(0));
    }
    Ok(coded.unwrap_or_else(|| declared.map_or(Length::UntilClose, Length::Exact)))
}

/// Whether a response of this status never has a body (RFC 9110, 6.4.1).
#[must_use]
pub fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn chunked(version: Version, headers: &HeaderMap, coding: &HeaderValue) -> Result<Length, BadHead> {
    let single = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
    if version == Version::HTTP_10 || !single {
        return Err(CODING);
    }
    let coding = coding.as_bytes();
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Length::Chunked);
    }
    let last = coding
        .rsplit(|byte| *byte == b',')
        .next()
        .unwrap_or_default();
    let unknown_first =
        last.len() < coding.len() && last.trim_ascii().eq_ignore_ascii_case(b"chunked");
    Err(if unknown_first {
        BadHead::Coding
    } else {
        CODING
    })
}

/// Digits and nothing else.
fn number(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads one body out of the bytes of a connection, and not one byte more.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    limits: HeadLimits,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Debug)]
enum State {
    Exact(u64),
    UntilClose,
    /// At the start of a chunk's line.
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers(Scan),
    Ended,
    /// What comes next cannot be told: there is no end.
    Faulty(BadFraming),
}

/// What a [`Decoder`] found.
#[derive(PartialEq, Eq)]
pub enum Found {
    /// Some of the body.
    Data(Bytes),
    /// The fields after it.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// Nothing: more bytes are needed.
    More,
}

/// A body that is not framed as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFraming(pub &'static str);

/// Bytes of extensions that the chunks of one body may have.
const MAX_EXTENSIONS: usize = 16 << 10;
/// Digits of a chunk's size: more would not fit.
const MAX_DIGITS: usize = 16;

impl Decoder {
    /// For a body of `length`, whose trailers are held to `limits`.
    #[must_use]
    pub fn new(length: Length, limits: HeadLimits) -> Self {
        let state = match length {
            Length::Exact(0) => State::Ended,
            Length::Exact(length) => State::Exact(length),
            Length::Chunked => State::Size,
            Length::UntilClose => State::UntilClose,
        };
        Self {
            state,
            limits,
            extensions: 0,
        }
    }

    /// Whether the body was read to its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The bytes that are still to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Exact(left) => Some(left),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// What is known of its length: of chunks, that the one which has begun is still to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::default();
        match self.state {
            State::Exact(left) => hint.set_exact(left),
            State::Chunk(left) => hint.set_lower(left),
            State::Ended => hint.set_exact(0),
            _ => {}
        }
        hint
    }

    /// The connection ended: whether the body did, too.
    pub fn close(&mut self) -> bool {
        if matches!(self.state, State::UntilClose) {
            self.state = State::Ended;
        }
        self.is_ended()
    }

    /// Takes what it can from the front of `input`.
    ///
    /// # Errors
    /// When the framing is faulty, and then for ever: such a body has no end. The connection must not
    /// be used any more.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Found, BadFraming> {
        self.advance(input)
            .inspect_err(|bad| self.state = State::Faulty(*bad))
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Found, BadFraming> {
        loop {
            match &mut self.state {
                State::Ended => return Ok(Found::End),
                State::Faulty(bad) => return Err(*bad),
                _ if input.is_empty() => return Ok(Found::More),
                State::Exact(left) => {
                    let data = take(input, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                    return Ok(Found::Data(data));
                }
                State::UntilClose => return Ok(Found::Data(take(input, u64::MAX))),
                State::Chunk(left) => {
                    let data = take(input, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Found::Data(data));
                }
                State::ChunkEnd => {
                    if input[0] != b'\r' || input.get(1).is_some_and(|byte| *byte != b'\n') {
                        return Err(BadFraming("a chunk does not end where its size says"));
                    }
                    if input.len() < 2 {
                        return Ok(Found::More);
                    }
                    input.advance(2);
                    self.state = State::Size;
                }
                State::Size => match self.size(input)? {
                    None => return Ok(Found::More),
                    Some(0) => self.state = State::Trailers(Scan::of_trailers()),
                    Some(size) => self.state = State::Chunk(size),
                },
                State::Trailers(scan) => {
                    let faulty = |_| BadFraming("the fields after the last chunk are malformed");
                    let Some(whole) = scan.advance(input, &self.limits).map_err(faulty)? else {
                        return Ok(Found::More);
                    };
                    let section = input.split_to(whole.end).freeze();
                    let trailers = head::trailers(&section, &whole).map_err(faulty)?;
                    self.state = State::Ended;
                    if !trailers.is_empty() {
                        return Ok(Found::Trailers(trailers));
                    }
                }
            }
        }
    }

    /// Reads the line before a chunk (RFC 9112, 7.1): its extensions are dropped.
    fn size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, BadFraming> {
        let digits = input
            .iter()
            .take(MAX_DIGITS + 1)
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits > MAX_DIGITS || (digits == 0 && !input.is_empty()) {
            return Err(BadFraming("the size of a chunk is no number"));
        }
        let Some(end) = memchr(b'\n', input) else {
            // A CR at the end may be that of the line's own end.
            let extensions = &input[digits..];
            let extensions = extensions.strip_suffix(b"\r").unwrap_or(extensions);
            if self.extensions + extensions.len() > MAX_EXTENSIONS {
                return Err(BadFraming("the extensions of the chunks are too long"));
            }
            return Ok(None);
        };
        let extensions = input[digits..end]
            .strip_suffix(b"\r")
            .ok_or(BadFraming("the line of a chunk does not end with CR LF"))?;
        self.extensions += extensions.len();
        if self.extensions > MAX_EXTENSIONS {
            return Err(BadFraming("the extensions of the chunks are too long"));
        }
        let starts = extensions.trim_ascii_start().first();
        let readable = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !(extensions.is_empty() || starts == Some(&b';')) || !extensions.iter().all(readable) {
            return Err(BadFraming("the extension of a chunk is malformed"));
        }
        let size = input[..digits].iter().fold(0, |size: u64, digit| {
            size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default())
        });
        input.advance(end + 1);
        Ok(Some(size))
    }
}

fn take(input: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    input.split_to(length).freeze()
}

/// Whether a name that `http` took as one of HTTP/2 is a token, as all over HTTP/1.1 are: it lets a
/// quotation mark pass (RFC 9110, 5.6.2).
#[must_use]
pub fn is_token(name: &header::HeaderName) -> bool {
    !name.as_str().contains('"')
}

/// Whether a field may come after a body: none that is none, frames a message, routes it, speaks for a
/// client or belongs to one connection (RFC 9110, 6.5.1).
#[must_use]
pub fn may_trail(name: &header::HeaderName) -> bool {
    if !is_token(name) {
        return false;
    }
    let name = name.as_str();
    !matches!(
        name,
        "age"
            | "authorization"
            | "cache-control"
            | "cdn-loop"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "expires"
            | "forwarded"
            | "host"
            | "keep-alive"
            | "location"
            | "max-forwards"
            | "pragma"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "range"
            | "retry-after"
            | "set-cookie"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "vary"
            | "via"
            | "warning"
            | "www-authenticate"
            | "x-real-ip"
            | "x-request-id"
    ) && !name.starts_with("x-forwarded-")
        && !name.starts_with("if-")
        && !name.contains('_')
}

impl std::fmt::Debug for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Data(data) => write!(out, "Data({} bytes)", data.len()),
            Self::Trailers(fields) => write!(out, "Trailers({} fields)", fields.len()),
            Self::End => out.write_str("End"),
            Self::More => out.write_str("More"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 100,
        fields: 2,
    };

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_request_has_one_length_or_is_refused() {
        let check = |fields: &[_], expected| {
            let length = of_request(Version::HTTP_11, &headers(fields));
            assert_eq!(length, expected, "{fields:?}");
        };
        let length = |value| [("content-length", value)];
        let coding = |value| [("transfer-encoding", value)];
        check(&[], Ok(Length::Exact(0)));
        check(&length("0"), Ok(Length::Exact(0)));
        check(&length("17"), Ok(Length::Exact(17)));
        check(&length("18446744073709551615"), Ok(Length::Exact(u64::MAX)));
        for value in [
            "",
            "+1",
            "-1",
            "0x10",
            "1 ",
            "1,1",
            "1;",
            "18446744073709551616",
            "1e3",
            "\u{661}",
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                let mut map = HeaderMap::new();
                map.insert(header::CONTENT_LENGTH, value);
                assert_eq!(of_request(Version::HTTP_11, &map), Err(LENGTH), "{map:?}");
            }
        }
        check(&[length("5")[0], length("5")[0]], Err(TWICE));
        check(&[length("5")[0], coding("chunked")[0]], Err(TWICE));
        check(&[coding("chunked")[0], length("5")[0]], Err(TWICE));
        check(&coding("chunked"), Ok(Length::Chunked));
        check(&coding("Chunked"), Ok(Length::Chunked));
        check(&coding("gzip, chunked"), Err(BadHead::Coding));
        for value in [
            "gzip",
            "chunked, gzip",
            "identity",
            "xchunked",
            "chunked;q=1",
            "",
            "\"chunked\"",
        ] {
            check(&coding(value), Err(CODING));
        }
        check(&[coding("chunked")[0], coding("chunked")[0]], Err(CODING));
        let old = of_request(Version::HTTP_10, &headers(&coding("chunked")));
        assert_eq!(old, Err(CODING));
    }

    #[test]
    fn a_response_ends_as_its_head_says() {
        let check = |status: u16, to_head, fields: &[_], expected| {
            let status = StatusCode::from_u16(status).unwrap();
            let length = of_response(status, Version::HTTP_11, &headers(fields), to_head);
            assert_eq!(length, expected, "{status} {fields:?}");
        };
        let five = ("content-length", "5");
        let chunked = ("transfer-encoding", "chunked");
        check(200, false, &[], Ok(Length::UntilClose));
        check(200, false, &[five], Ok(Length::Exact(5)));
        check(200, false, &[five, five], Ok(Length::Exact(5)));
        check(200, false, &[five, chunked], Ok(Length::Chunked));
        check(200, true, &[five], Ok(Length::Exact(0)));
        check(200, true, &[chunked], Ok(Length::Exact(0)));
        check(204, false, &[five], Ok(Length::Exact(0)));
        check(304, false, &[five], Ok(Length::Exact(0)));
        check(200, false, &[five, ("content-length", "6")], Err(TWICE));
        check(204, false, &[("content-length", "x")], Err(LENGTH));
        check(200, false, &[("transfer-encoding", "gzip")], Err(CODING));
    }

    /// Reads `input` in two pieces: the data, the trailers, and what is left.
    fn decode(
        length: Length,
        input: &str,
        cut: usize,
    ) -> Result<(String, usize, String), BadFraming> {
        let mut decoder = Decoder::new(length, LIMITS);
        let (first, second) = input.as_bytes().split_at(cut);
        let mut buffer = BytesMut::from(first);
        let mut rest = Some(second);
        let (mut data, mut trailers) = (Vec::new(), 0);
        loop {
            match decoder.decode(&mut buffer)? {
                Found::Data(piece) => data.extend_from_slice(&piece),
                Found::Trailers(fields) => trailers = fields.len(),
                Found::End => break,
                Found::More => match rest.take() {
                    Some(second) => buffer.extend_from_slice(second),
                    None => {
                        assert!(decoder.close(), "it is cut off");
                        break;
                    }
                },
            }
        }
        buffer.extend_from_slice(rest.unwrap_or_default());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok((text(&data), trailers, text(&buffer)))
    }

    fn check(length: Length, input: &str, data: &str, trailers: usize, left: &str) {
        for cut in 0..=input.len() {
            let found = decode(length, input, cut).unwrap();
            assert_eq!(found, (data.into(), trailers, left.into()), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_read_to_its_end_and_no_further() {
        check(Length::Exact(0), "next", "", 0, "next");
        check(Length::Exact(3), "abcnext", "abc", 0, "next");
        check(Length::UntilClose, "abc", "abc", 0, "");
        check(Length::Chunked, "0\r\n\r\nnext", "", 0, "next");
        check(
            Length::Chunked,
            "3\r\nabc\r\n00A; a=\"b\"\r\n0123456789\r\n000\r\nX: y\r\nZ:\r\n\r\nnext",
            "abc0123456789",
            2,
            "next",
        );
    }

    #[test]
    fn a_faulty_chunk_is_refused_as_soon_as_it_is_seen() {
        for input in [
            "g\r\n",
            "\r\n",
            ";a\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "1\r\nab",
            "1\r\na\n0\r\n",
            "1\r\na\rb",
            "1;a\rb\r\n",
            "1;\0\r\n",
            "1 a\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\r\nA: b\r\nA: b\r\n\r\n",
        ] {
            for cut in 0..=input.len() {
                assert!(decode(Length::Chunked, input, cut).is_err(), "{input:?}");
            }
            let mut decoder = Decoder::new(Length::Chunked, LIMITS);
            let mut buffer = BytesMut::from(input);
            while decoder.decode(&mut buffer).is_ok() {}
            assert!(!decoder.is_ended(), "{input:?} has an end");
            assert!(decoder.decode(&mut BytesMut::from("0\r\n\r\n")).is_err());
        }
    }

    #[test]
    fn a_faulty_body_has_no_end() {
        for input in ["1\r\nab", "g\r\n", "0\r\nA : b\r\n\r\n", "0\r\nA: b\n\r\n"] {
            let mut decoder = Decoder::new(Length::Chunked, LIMITS);
            let mut buffer = BytesMut::from(format!("{input}0\r\n\r\n").as_bytes());
            let bad = loop {
                match decoder.decode(&mut buffer) {
                    Ok(found) => assert!(matches!(found, Found::Data(_)), "{input:?}"),
                    Err(bad) => break bad,
                }
            };
            assert_eq!(decoder.decode(&mut buffer), Err(bad), "{input:?}");
            assert!(!decoder.close() && !decoder.is_ended(), "{input:?}");
        }
    }

    #[test]
    fn extensions_have_a_limit_for_the_whole_body() {
        let chunk = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length - 1));
        let two = |first, second| format!("{}{}0\r\n\r\n", chunk(first), chunk(second));
        let decode = |input: String| decode(Length::Chunked, &input, input.len());
        decode(two(MAX_EXTENSIONS - 9, 9)).unwrap();
        decode(two(MAX_EXTENSIONS - 9, 10)).unwrap_err();
        decode(format!("1;{}", "x".repeat(MAX_EXTENSIONS))).unwrap_err();
    }

    #[test]
    fn a_line_that_is_cut_before_its_line_feed_has_the_same_limit() {
        let line = format!("1;{}\r\n", "x".repeat(MAX_EXTENSIONS - 1));
        let input = format!("{line}a\r\n0\r\n\r\n");
        for cut in line.len() - 3..=line.len() {
            let found = decode(Length::Chunked, &input, cut).unwrap();
            assert_eq!(found.0, "a", "cut at {cut}");
            let longer = input.replace(';', ";x");
            decode(Length::Chunked, &longer, cut).unwrap_err();
        }
    }
}
