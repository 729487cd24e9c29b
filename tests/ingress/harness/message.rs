//! HTTP/1.1 messages, read strictly and kept as they were sent.

use std::io::{self, Read};
use std::net::TcpStream;

/// Names as they were spelled, and values.
pub(crate) type Fields = Vec<(String, String)>;

/// The head of a message, to the byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The request line or the status line.
    pub(crate) first: String,
    pub(crate) fields: Fields,
    pub(crate) raw: Vec<u8>,
}

/// A request that a backend or the API has received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    pub(crate) arrival: Arrival,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// How much of a request there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Its head; nobody has read its body to an end.
    #[default]
    Begun,
    /// All of it.
    Whole,
    /// Its body broke off.
    Cut,
}

/// A response that a caller has received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

impl Head {
    fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let text = text.strip_suffix("\r\n\r\n").unwrap();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let fields = lines.map(field).collect();
        let raw = raw.to_vec();
        Self { first, fields, raw }
    }

    /// The value of a field that is there once or not at all.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there twice: {all:?}");
        all.first().copied()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    fn word(&self, index: usize) -> &str {
        self.first.split(' ').nth(index).unwrap_or_default()
    }

    fn framing(&self) -> Framing {
        let coding = self.field("Transfer-Encoding");
        let length = self.field("Content-Length");
        match (coding, length) {
            (Some(coding), None) => {
                assert!(coding.eq_ignore_ascii_case("chunked"), "{coding}");
                Framing::Chunked
            }
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::None,
            (Some(_), Some(_)) => panic!("both framing fields: {self:?}"),
        }
    }
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.head.word(0)
    }

    pub(crate) fn target(&self) -> &str {
        self.head.word(1)
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let json = serde_json::from_slice(&self.body);
        json.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status, and shows the whole reply where it is another one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status(),
            status,
            "{}\n{}",
            self.head.first,
            self.text()
        );
        self
    }
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap()
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    Close,
}

impl Framing {
    pub(crate) fn of_request(head: &Head) -> Self {
        head.framing()
    }

    /// RFC 9112, 6.3; `method` is that of the request.
    pub(crate) fn of_response(head: &Head, method: &str) -> Self {
        let bodiless = matches!(head.status(), 100..=199 | 204 | 304);
        if bodiless || method == "HEAD" {
            return Self::None;
        }
        match head.framing() {
            Self::None => Self::Close,
            framing => framing,
        }
    }
}

/// A stream, and what was read of it beyond the last message.
#[derive(Debug)]
pub(crate) struct Reader<S = TcpStream> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

impl<S: Read> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        let ahead = Vec::new();
        Self { stream, ahead }
    }

    /// The next head; `None` where the stream ends before its first byte.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                let raw: Vec<u8> = self.ahead.drain(..end + 4).collect();
                return Ok(Some(Head::parse(&raw)));
            }
            if self.more()? == 0 {
                return match self.ahead.len() {
                    0 => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// A whole body and its trailers.
    pub(crate) fn body(&mut self, framing: Framing) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        match framing {
            Framing::None => {}
            Framing::Length(length) => body = self.exactly(usize::try_from(length).unwrap())?,
            Framing::Chunked => {
                while let Some(chunk) = self.chunk()? {
                    body.extend_from_slice(&chunk);
                }
                return Ok((body, self.trailers()?));
            }
            Framing::Close => body = self.rest()?,
        }
        Ok((body, Vec::new()))
    }

    /// The whole answer to a request by `method`.
    pub(crate) fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let head = self.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let framing = Framing::of_response(&head, method);
        let (body, trailers) = self.body(framing)?;
        Ok(Reply {
            head,
            body,
            trailers,
        })
    }

    /// The next chunk; `None` after the last one, with the trailers still to be read.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(&line, 16)
            .map_err(|_| io::Error::other(format!("no chunk size: {line:?}")))?;
        if size == 0 {
            return Ok(None);
        }
        let chunk = self.exactly(size)?;
        match self.exactly(2)?.as_slice() {
            b"\r\n" => Ok(Some(chunk)),
            other => Err(io::Error::other(format!("no end of a chunk: {other:?}"))),
        }
    }

    pub(crate) fn trailers(&mut self) -> io::Result<Fields> {
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(field(&line));
        }
    }

    pub(crate) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line).unwrap());
            }
            self.need_more()?;
        }
    }

    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.need_more()?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// Whatever has arrived, at least a byte; empty at the end.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Everything until the end of the stream.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    fn need_more(&mut self) -> io::Result<()> {
        match self.more()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line
        .split_once(':')
        .unwrap_or_else(|| panic!("no field: {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
