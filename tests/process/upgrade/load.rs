//! Clients that ask again and again while something happens, and remember every failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::caller::{connect, read, request};
use crate::process::eventually;

/// What a client does again and again.
type Ask = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicUsize>>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// A client that is busy elsewhere for longer may find its connection closed, whatever the server does.
const DAWDLING: Duration = Duration::from_millis(250);

impl Load {
    pub(crate) fn start(clients: Vec<Ask>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut load = Self {
            stop: Arc::clone(&stop),
            answered: Vec::new(),
            clients: Vec::new(),
        };
        for mut ask in clients {
            let answered = Arc::<AtomicUsize>::default();
            load.answered.push(Arc::clone(&answered));
            let stop = Arc::clone(&stop);
            load.clients.push(std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask() {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(failure) => failures.push(failure),
                    }
                }
                failures
            }));
        }
        load.goes_on();
        load
    }

    /// Waits until every client has had some more answers.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let count = |answered: &Arc<AtomicUsize>| answered.load(Ordering::Relaxed);
        let before: Vec<usize> = self.answered.iter().map(count).collect();
        eventually("every client gets answers", || {
            let now = self.answered.iter().map(count);
            let mut more = now.zip(&before).map(|(now, before)| now - before);
            more.all(|more| more >= 3).then_some(())
        });
    }

    /// Ends it: not one failed.
    #[track_caller]
    pub(crate) fn nobody_failed(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let failures = clients.into_iter().map(|client| client.join().unwrap());
        let failures: Vec<String> = failures.flatten().collect();
        let answered = self
            .answered
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let answered: usize = answered.sum();
        assert!(
            failures.is_empty(),
            "{} failed and {answered} did not: {failures:#?}",
            failures.len()
        );
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A connection for each request.
pub(crate) fn one_by_one(address: SocketAddr, host: &'static str, target: &'static str) -> Ask {
    Box::new(move || {
        let began = Instant::now();
        let mut socket = connect(address).map_err(|error| format!("connecting: {error}"))?;
        let text = request("GET", host, target, &[], "");
        let sent = socket.write_all(text.as_bytes());
        let late = began.elapsed() > DAWDLING;
        let answer = sent.and_then(|()| read(socket));
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            Err(_) if late => Ok(()),
            Ok(answer) => Err(format!("{target}: {answer:?}")),
            Err(error) => Err(format!("{target}: {error}")),
        }
    })
}

/// One request after the other on a connection, until the server says that it was the last.
pub(crate) fn kept(address: SocketAddr, host: &'static str, target: &'static str) -> Ask {
    let mut connection: Option<(BufReader<TcpStream>, Instant)> = None;
    Box::new(move || {
        let (mut socket, since) = match connection.take() {
            Some(kept) => kept,
            None => {
                let began = Instant::now();
                let socket = connect(address).map_err(|error| format!("connecting: {error}"))?;
                (BufReader::new(socket), began)
            }
        };
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let sent = socket.get_mut().write_all(text.as_bytes());
        let late = since.elapsed() > DAWDLING;
        match sent.and_then(|()| answer(&mut socket)) {
            Ok((200, is_last)) => {
                if !is_last {
                    connection = Some((socket, Instant::now()));
                }
                Ok(())
            }
            Err(_) if late => Ok(()),
            Ok((status, _)) => Err(format!("{target}, kept: {status}")),
            Err(error) => Err(format!("{target}, kept: {error}")),
        }
    })
}

/// A program that asks once, with a connection of its own.
pub(crate) fn by_curl(arguments: Vec<String>) -> Ask {
    Box::new(move || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "30", "-o", "/dev/null"]);
        let output = curl.args(&arguments).output();
        let output = output.map_err(|error| format!("{error}; run tests/setup"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("curl: {said}")),
        }
    })
}

/// The status of the next answer, and whether it is the last one.
fn answer(socket: &mut BufReader<TcpStream>) -> std::io::Result<(u16, bool)> {
    let (mut status, mut length, mut is_last) = (0, 0, false);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if let Some(value) = line.strip_prefix("connection:") {
            is_last = value.trim() == "close";
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok((status, is_last))
}
