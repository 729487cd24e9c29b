//! A backend of an app or function: real sockets, and an answer that a test makes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A server that lasts as long as the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
}

/// What arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// The request line and the fields.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Server {
    /// Answers each request with the bytes that `answer` makes of it, and closes.
    pub(crate) fn start(answer: impl Fn(Arrived) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        // Ends with the process: nothing of it outlives the tests.
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    if let Some(arrived) = arrived(&socket) {
                        let _gone = (&socket).write_all(answer(arrived).as_bytes());
                    }
                });
            }
        });
        Self { address }
    }

    /// Where it is, as a backend is named.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A whole answer of status 200.
pub(crate) fn ok(content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn arrived(socket: &TcpStream) -> Option<Arrived> {
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Arrived { head, body })
}
