//! A client that sends exactly the bytes it is told to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::process::CAP;

/// What came back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the fields.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, of an answer that went well.
    #[track_caller]
    pub(crate) fn fine(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let mut answer = Self {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            head,
            body: String::new(),
        };
        let body = &bytes[end + 4..];
        let chunked = answer.field("transfer-encoding") == Some("chunked");
        let length = answer
            .field("content-length")
            .and_then(|text| text.parse().ok());
        let body = match (chunked, length) {
            (true, _) => chunks(body).ok_or(io::ErrorKind::UnexpectedEof)?,
            (false, Some(length)) if body.len() < length && !body.is_empty() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (false, _) => body.to_vec(),
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }
}

/// Sends `bytes`, and reads until the other side closes.
pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut socket = connect(address)?;
    socket.write_all(bytes)?;
    read(socket)
}

/// Reads an answer that ends with its connection.
pub(crate) fn read(mut socket: TcpStream) -> io::Result<Answer> {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        // A refusal may be cut off by what was not read of the request.
        Err(error) if answer.is_empty() => Err(error),
        Err(_) | Ok(_) => Answer::parse(&answer),
    }
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, CAP)?;
    socket.set_read_timeout(Some(CAP))?;
    Ok(socket)
}

/// A request that asks for the connection to be closed. `fields` are whole lines.
pub(crate) fn request(
    method: &str,
    host: &str,
    target: &str,
    fields: &[&str],
    body: &str,
) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, host: &str, target: &str) -> Answer {
    let text = request("GET", host, target, &[], "");
    send(address, text.as_bytes()).unwrap()
}

/// Calls an endpoint of the API, `url/create`, with `key`.
pub(crate) fn try_api(
    address: SocketAddr,
    key: &str,
    endpoint: &str,
    body: &Value,
) -> io::Result<Answer> {
    let key = format!("Authorization: Bearer {key}");
    let text = request(
        "POST",
        "localhost",
        &format!("/v1/{endpoint}"),
        &[&key, "Content-Type: application/json"],
        &body.to_string(),
    );
    send(address, text.as_bytes())
}

/// The same, where nothing may go wrong on the way.
#[track_caller]
pub(crate) fn api(address: SocketAddr, key: &str, endpoint: &str, body: &Value) -> Answer {
    try_api(address, key, endpoint, body).unwrap()
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
