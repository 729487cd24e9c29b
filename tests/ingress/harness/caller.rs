//! A client that sends exactly the bytes it is told and reads what comes back strictly.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::PATIENCE;
use super::message::{Framing, Head, Reader, Reply};

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct Caller {
    reader: Reader,
}

impl Caller {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// The same from an address of its own.
    #[track_caller]
    pub(crate) fn connect_from(ip: IpAddr, address: SocketAddr) -> Self {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = Reader::new(stream);
        Self { reader }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// Sends a request without a body: `fields` are lines, each with its end.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, target: &str, host: &str, fields: &str) -> Reply {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        ));
        self.reply_to(method)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, target: &str) -> Reply {
        self.ask("GET", target, host, "")
    }

    /// Sends a request with a body of known length.
    #[track_caller]
    pub(crate) fn post(&mut self, host: &str, target: &str, fields: &str, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        self.send([head.as_bytes(), body].concat());
        self.reply()
    }

    /// The reply to anything but a HEAD.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    #[track_caller]
    pub(crate) fn reply_to(&mut self, method: &str) -> Reply {
        self.try_reply_to(method).unwrap()
    }

    pub(crate) fn try_reply(&mut self) -> io::Result<Reply> {
        self.try_reply_to("GET")
    }

    fn try_reply_to(&mut self, method: &str) -> io::Result<Reply> {
        self.reader.reply(method)
    }

    /// The next head alone; its body is then read piece by piece.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().unwrap()
    }

    fn try_head(&mut self) -> io::Result<Head> {
        let head = self.reader.head()?;
        head.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(crate) fn try_body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let framing = Framing::of_response(head, "GET");
        Ok(self.reader.body(framing)?.0)
    }

    /// The next chunk of a chunked body.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        self.reader.chunk().unwrap()
    }

    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.reader.exactly(count).unwrap()
    }

    /// Reads until the connection ends, cleanly or not, and gives what came before that.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        loop {
            match self.reader.some() {
                Ok(bytes) if bytes.is_empty() => return rest,
                Ok(bytes) => rest.extend_from_slice(&bytes),
                Err(error) if timed_out(&error) => panic!("the connection stays open"),
                Err(_) => return rest,
            }
        }
    }

    /// The socket, to set what a test needs of it.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.reader.stream
    }
}

/// Whether a read or write gave up waiting, rather than meeting an end.
pub(crate) fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
