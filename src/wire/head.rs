//! The strict reading of a message's head (RFC 9112, 2 to 5): every line ends with CR LF, nothing is
//! folded, nothing is guessed. What is not to the letter is refused, and the connection with it.

use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use memchr::{memchr, memchr_iter};

use crate::settings::Limits;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// All of it, in bytes.
    pub bytes: usize,
    /// Fields in it.
    pub fields: usize,
}

impl HeadLimits {
    /// From the configuration.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            bytes: usize::try_from(limits.header).unwrap_or(usize::MAX),
            fields: limits.headers,
        }
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It is not what the standard says a head looks like.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its target alone is larger than a head may be.
    #[error("the target is larger than this server takes")]
    TargetTooLong,
    /// It is larger than a head may be.
    #[error("the header fields are larger than this server takes")]
    TooLarge,
    /// It has more fields than it may have.
    #[error("there are more header fields than this server takes")]
    TooManyFields,
    /// It speaks a version of HTTP that is not spoken here.
    #[error("this version of HTTP is not spoken here")]
    Version,
    /// Its body has a transfer coding that is not known here.
    #[error("the only transfer coding that is known here is chunked")]
    Coding,
}

const LINE_END: BadHead = BadHead::Malformed("a line of the head does not end with CR LF");
const START_LINE: BadHead = BadHead::Malformed("the first line is not one of HTTP");
const TARGET: BadHead = BadHead::Malformed("the target of the request is malformed");
const FIELD: BadHead = BadHead::Malformed("a header field is malformed");

/// Looks for the end of a head in bytes that arrive in pieces. No byte is looked at twice.
#[derive(Debug, Default)]
pub struct Scan {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the head starts: past the empty lines before it.
    start: usize,
    /// Where the line that is not whole yet starts.
    line: usize,
    /// Whole lines, those before the head not counted.
    lines: usize,
}

/// A head that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Where its lines are, the empty one at the end not included.
    pub lines: Range<usize>,
    /// What comes after it starts here.
    pub end: usize,
    /// How many fields it has.
    pub fields: usize,
}

impl Scan {
    /// For the section after the last chunk: it has fields, and no first line.
    #[must_use]
    pub(super) fn of_trailers() -> Self {
        Self {
            lines: 1,
            ..Self::default()
        }
    }

    /// The first line, once it is whole; without its CR LF.
    #[must_use]
    pub fn first_line<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        let lines = (self.lines > 0).then(|| &input[self.start..self.line])?;
        memchr(b'\n', lines).map(|end| &lines[..end - 1])
    }

    /// Goes on with `input`, which begins as it did the last time. `None` when the end of the head is
    /// not in it.
    ///
    /// # Errors
    /// When this can never become a head.
    pub fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Option<Whole>, BadHead> {
        let seen = self.seen;
        for found in memchr_iter(b'\n', input.get(seen..).unwrap_or_default()) {
            let end = seen + found;
            if end == self.line || input[end - 1] != b'\r' {
                return Err(LINE_END);
            }
            if end - 1 == self.line {
                if self.lines == 0 {
                    // RFC 9112, 2.2: an empty line before a request is passed over.
                    self.start = end + 1;
                    self.line = end + 1;
                    continue;
                }
                if end + 1 > limits.bytes {
                    return Err(BadHead::TooLarge);
                }
                return Ok(Some(Whole {
                    lines: self.start..self.line,
                    end: end + 1,
                    fields: self.lines - 1,
                }));
            }
            if self.lines > limits.fields {
                return Err(BadHead::TooManyFields);
            }
            self.lines += 1;
            self.line = end + 1;
        }
        self.seen = input.len();
        if input.len() >= limits.bytes {
            let in_target = self.lines == 0 && self.line < input.len();
            return Err(if in_target {
                BadHead::TargetTooLong
            } else {
                BadHead::TooLarge
            });
        }
        // What never becomes a head is told at once: a TLS handshake, say, waits for an answer.
        if self.lines == 0 && input.get(self.start).is_some_and(|byte| !starts(*byte)) {
            return Err(START_LINE);
        }
        Ok(None)
    }
}

/// Whether a first line may start with `byte`: a method or a version, or the CR of an empty line.
fn starts(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b'\r'
}

/// Reads a request's head. Values are slices of `head`; `spare` is an empty map that is filled.
///
/// # Errors
/// When it is not strictly one.
pub fn request(
    head: &Bytes,
    whole: &Whole,
    spare: HeaderMap,
) -> Result<http::Request<()>, BadHead> {
    let (line, rest) = first_line(head, whole)?;
    let (method, target, version) = request_line(&head[line.clone()])?;
    let target = head.slice(line.start + target.start..line.start + target.end);
    let uri = uri(target, &method)?;
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = spare;
    fields(head, rest, whole.fields + ROOM, request.headers_mut())?;
    Ok(request)
}

/// Reads a request line: the method, where the target is, and the version.
///
/// # Errors
/// When it is none of a version that is spoken here.
pub fn request_line(text: &[u8]) -> Result<(Method, Range<usize>, Version), BadHead> {
    let space = memchr(b' ', text).ok_or(START_LINE)?;
    let last_space = memchr::memrchr(b' ', text).ok_or(START_LINE)?;
    if last_space <= space {
        return Err(START_LINE);
    }
    let target = space + 1..last_space;
    if target.is_empty() || !text[target.clone()].iter().all(|byte| is_of_target(*byte)) {
        return Err(TARGET);
    }
    let version = version(&text[last_space + 1..])?;
    let method = Method::from_bytes(&text[..space]).map_err(|_| START_LINE)?;
    Ok((method, target, version))
}

/// The words after the status, where they are not those of the standard. An extension of a response.
#[derive(Debug, Clone)]
pub struct Reason(pub(super) Bytes);

/// Reads a response's head, as [`request`] does.
///
/// # Errors
/// When it is not strictly one.
pub fn response(
    head: &Bytes,
    whole: &Whole,
    spare: HeaderMap,
) -> Result<http::Response<()>, BadHead> {
    if whole.lines.start != 0 {
        return Err(START_LINE);
    }
    let (line, rest) = first_line(head, whole)?;
    let text = &head[line.clone()];
    let (version_text, text) = text.split_at_checked(8).ok_or(START_LINE)?;
    let version = version(version_text)?;
    // RFC 9112, 4: the space after the status is there even when no reason is. Many leave it out.
    let (status, reason) = text.split_at_checked(4).ok_or(START_LINE)?;
    let status = status
        .strip_prefix(b" ")
        .and_then(|digits| StatusCode::from_bytes(digits).ok())
        .ok_or(START_LINE)?;
    let readable = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !(reason.is_empty() || reason[0] == b' ') || !reason.iter().all(readable) {
        return Err(START_LINE);
    }
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    let usual = status.canonical_reason().unwrap_or_default();
    if !reason.is_empty() && &reason[1..] != usual.as_bytes() {
        let reason = head.slice(line.end - reason.len() + 1..line.end);
        response.extensions_mut().insert(Reason(reason));
    }
    *response.headers_mut() = spare;
    fields(head, rest, whole.fields, response.headers_mut())?;
    Ok(response)
}

/// Reads the lines of a trailer section.
///
/// # Errors
/// When one of them is no field.
pub(super) fn trailers(section: &Bytes, whole: &Whole) -> Result<HeaderMap, BadHead> {
    let mut map = HeaderMap::new();
    fields(section, whole.lines.clone(), whole.fields, &mut map)?;
    Ok(map)
}

/// Fields that a request is given on its way; room is made for them once.
const ROOM: usize = 10;

/// The first line without its CR LF, and where the others are.
fn first_line(head: &[u8], whole: &Whole) -> Result<(Range<usize>, Range<usize>), BadHead> {
    let lines = &head[whole.lines.clone()];
    let end = memchr(b'\n', lines).ok_or(START_LINE)?;
    let start = whole.lines.start;
    Ok((start..start + end - 1, start + end + 1..whole.lines.end))
}

fn version(text: &[u8]) -> Result<Version, BadHead> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(BadHead::Version)
        }
        _ => Err(START_LINE),
    }
}

/// Visible characters, and what is not ASCII, which many send unescaped. No fragment: it is never
/// sent, and some cut it off while others keep it.
fn is_of_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && byte != b'#'
}

/// The target in one of its four forms (RFC 9112, 3.2), each where it belongs.
fn uri(target: Bytes, method: &Method) -> Result<Uri, BadHead> {
    let is_origin = target[0] == b'/';
    let is_asterisk = &*target == b"*";
    let uri = Uri::from_maybe_shared(target).map_err(|_| TARGET)?;
    let fits = if method == Method::CONNECT {
        uri.scheme().is_none() && uri.port().is_some()
    } else if is_origin {
        true
    } else if is_asterisk {
        method == Method::OPTIONS
    } else {
        // RFC 9112, 3.2.2. Other schemes are for proxies that a client has chosen.
        matches!(uri.scheme_str(), Some("http" | "https"))
    };
    if fits { Ok(uri) } else { Err(TARGET) }
}

fn fields(
    head: &Bytes,
    lines: Range<usize>,
    capacity: usize,
    map: &mut HeaderMap,
) -> Result<(), BadHead> {
    map.try_reserve(capacity)
        .map_err(|_| BadHead::TooManyFields)?;
    let text = &head[lines.clone()];
    let mut start = 0;
    for end in memchr_iter(b'\n', text) {
        let line = &text[start..end - 1];
        // A name is a token: a space before the colon and a folded line are none.
        let colon = memchr(b':', line).ok_or(FIELD)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| FIELD)?;
        let value = trimmed(line, colon + 1);
        let at = lines.start + start;
        // Checks every byte: no control character but the tab.
        let mut value =
            HeaderValue::from_maybe_shared(head.slice(at + value.start..at + value.end))
                .map_err(|_| FIELD)?;
        value.set_sensitive(holds_secrets(&name));
        map.try_append(name, value)
            .map_err(|_| BadHead::TooManyFields)?;
        start = end + 1;
    }
    Ok(())
}

/// Whether nobody may print a field, and no protocol keep it in a table (RFC 7541, 7.1.3).
fn holds_secrets(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization"
            | "cookie"
            | "location"
            | "proxy-authorization"
            | "referer"
            | "sec-websocket-protocol"
            | "set-cookie"
            | "x-api-key"
    )
}

/// Where the value that starts at `start` is, without the white space around it.
fn trimmed(line: &[u8], start: usize) -> Range<usize> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut range = start..line.len();
    while range.start < range.end && is_space(&line[range.start]) {
        range.start += 1;
    }
    while range.start < range.end && is_space(&line[range.end - 1]) {
        range.end -= 1;
    }
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 200,
        fields: 3,
    };

    fn read(input: &str) -> Result<http::Request<()>, BadHead> {
        let whole = Scan::default()
            .advance(input.as_bytes(), &LIMITS)?
            .expect("the end is there");
        assert_eq!(whole.end, input.len());
        let head = Bytes::copy_from_slice(input.as_bytes());
        request(&head, &whole, HeaderMap::new())
    }

    fn read_response(input: &str) -> Result<http::Response<()>, BadHead> {
        let whole = Scan::default()
            .advance(input.as_bytes(), &LIMITS)?
            .expect("the end is there");
        let head = Bytes::copy_from_slice(input.as_bytes());
        response(&head, &whole, HeaderMap::new())
    }

    #[test]
    fn a_request_is_read_to_the_letter() {
        let request =
            read("\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nX-Y:\t v é \t\r\nx-y:\r\n\r\n").unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.version(), Version::HTTP_11);
        let values: Vec<_> = request.headers().get_all("x-y").iter().collect();
        assert_eq!(values, ["v \u{e9}".as_bytes(), b""]);
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused() {
        for input in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "GET / HTTP/1.1\r\nA: \rb\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\n A: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA@: b\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /  HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET /\tHTTP/1.1\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET / HTTP/1.10\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            "G@T / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /#f HTTP/1.1\r\n\r\n",
            "GET /\x7f HTTP/1.1\r\n\r\n",
            "GET a HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET x:80 HTTP/1.1\r\n\r\n",
            "GET ftp://x/ HTTP/1.1\r\n\r\n",
            "CONNECT x HTTP/1.1\r\n\r\n",
            "CONNECT http://x/ HTTP/1.1\r\n\r\n",
            "CONNECT / HTTP/1.1\r\n\r\n",
            "CONNECT * HTTP/1.1\r\n\r\n",
        ] {
            assert!(
                matches!(read(input), Err(BadHead::Malformed(_))),
                "{input:?}: {:?}",
                read(input)
            );
        }
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"] {
            let read = read(&format!("GET / {version}\r\n\r\n"));
            assert_eq!(read.unwrap_err(), BadHead::Version, "{version}");
        }
    }

    #[test]
    fn every_form_of_a_target_is_taken_where_it_belongs() {
        for line in [
            "GET /",
            "GET //a/../b?c=d%20e",
            "GET http://x/a",
            "GET http://x",
            "OPTIONS *",
            "CONNECT x:80",
        ] {
            read(&format!("{line} HTTP/1.0\r\n\r\n")).unwrap();
        }
    }

    #[test]
    fn a_head_is_found_however_it_is_cut_and_told_early_when_it_cannot_be_one() {
        let input = b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        for cut in 0..input.len() - 4 {
            let mut scan = Scan::default();
            assert_eq!(scan.advance(&input[..cut], &LIMITS), Ok(None), "{cut}");
            let whole = scan.advance(input, &LIMITS).unwrap().unwrap();
            let expected = Whole {
                lines: 2..24,
                end: 26,
                fields: 1,
            };
            assert_eq!(whole, expected, "{cut}");
        }
        let mut scan = Scan::default();
        assert_eq!(scan.advance(b"\r\nGET /\r", &LIMITS), Ok(None));
        assert_eq!(scan.first_line(b"\r\nGET /\r"), None);
        assert_eq!(scan.advance(b"\r\nGET /\r\nA:", &LIMITS), Ok(None));
        assert_eq!(scan.first_line(b"\r\nGET /\r\nA:"), Some(&b"GET /"[..]));
        let begun = |input: &[u8]| Scan::default().advance(input, &LIMITS).err();
        assert_eq!(begun(b"\x16\x03\x01"), Some(START_LINE));
        assert_eq!(begun(b"GET / HTTP/1.1\n"), Some(LINE_END));
        assert_eq!(begun(b"\n"), Some(LINE_END));
    }

    #[test]
    fn a_head_has_its_limits() {
        let with = |fields: usize| {
            read(&format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "A: b\r\n".repeat(fields)
            ))
        };
        assert_eq!(with(3).unwrap().headers().len(), 3);
        assert_eq!(with(4).unwrap_err(), BadHead::TooManyFields);
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(173));
        assert_eq!(long.len(), 196);
        read(&long).unwrap();
        let longer = long.replace("A: ", "Name: b");
        assert_eq!(longer.len(), 200);
        read(&longer).unwrap();
        let begun = |input: &str| Scan::default().advance(input.as_bytes(), &LIMITS).err();
        assert_eq!(
            begun(&longer.replace("Name", "Names")),
            Some(BadHead::TooLarge)
        );
        assert_eq!(begun(&format!("GET /{}", "a".repeat(194))), None);
        assert_eq!(
            begun(&format!("GET /{}", "a".repeat(195))),
            Some(BadHead::TargetTooLong)
        );
    }

    #[test]
    fn a_response_is_read_to_the_letter() {
        let response = read_response("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n").unwrap();
        assert_eq!(response.status(), 404);
        assert_eq!(read_response("HTTP/1.0 200\r\n\r\n").unwrap().status(), 200);
        assert_eq!(
            read_response("HTTP/1.1 200 \r\n\r\n").unwrap().status(),
            200
        );
        for line in [
            "HTTP/1.1 99 Low",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 200OK",
            "HTTP/1.1",
            "HTTP/1.1 2x0 OK",
            "HTTP/1.1 200 \0",
            "GET / HTTP/1.1",
            "\r\nHTTP/1.1 200 OK",
        ] {
            let read = read_response(&format!("{line}\r\n\r\n"));
            assert_eq!(read.unwrap_err(), START_LINE, "{line:?}");
        }
        let newer = read_response("HTTP/2.0 200 OK\r\n\r\n");
        assert_eq!(newer.unwrap_err(), BadHead::Version);
    }
}
