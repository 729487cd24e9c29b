//! Reads a body out of the bytes of a connection (RFC 9112, 7).

use bytes::{Buf, Bytes, BytesMut};
use http::header::HeaderMap;
use http_body::SizeHint;
use memchr::memchr;

use super::Length;
use crate::wire::head::{self, HeadLimits, Scan};

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

    /// So many bytes of it went by unseen: no more than were [left](Self::left).
    pub fn passed(&mut self, bytes: usize) {
        if let State::Exact(left) = &mut self.state {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                self.state = State::Ended;
            }
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
