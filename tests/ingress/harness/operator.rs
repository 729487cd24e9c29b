//! The operator at the control socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use m3o_ingress::config::Config;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// A control socket in a folder of its own.
pub(crate) struct Operator {
    folder: TempDir,
}

impl Operator {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// The ingress of this configuration is theirs.
    pub(crate) fn runs(&self, config: &mut Config) {
        config.listen.control = Some(self.socket());
    }

    /// A request as it stands, and status and JSON of its answer.
    #[track_caller]
    pub(crate) fn sends(&self, request: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> (u16, Value) {
        self.sends(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    #[track_caller]
    pub(crate) fn post(&self, target: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        self.sends(&format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// Does what is to go well.
    #[track_caller]
    pub(crate) fn does(&self, target: &str, body: &str) -> Value {
        let (status, answer) = self.post(target, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}
