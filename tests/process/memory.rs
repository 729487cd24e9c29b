//! What connections cost while nothing happens on them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::process::Pid;
use serde_json::json;

use crate::caller::{self, api};
use crate::process::{Ingress, eventually, run_command};

const CONNECTIONS: usize = 500;

/// The embedded platform on any ports, on one worker.
const CONFIG: &str = "
    listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', workers = 1 }
    backends = { allow_private = true }
    log = { access = false }
    platform.store = 'store'
";

#[test]
fn an_idle_connection_holds_less_than_eight_kibibytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_command(folder.path(), CONFIG);
    command.env("M3O_PLATFORM_KEY", "key");
    let ingress = Ingress::start(&mut command);
    let app = json!({"name": "kept", "backend": kept_backend()});
    api(ingress.http, "key", "app/Run", &app).fine();
    let pid = ingress.process.pid();

    // What is made once, is made.
    drop(used(ingress.http, 50));
    let before = resident(pid);
    let held = used(ingress.http, CONNECTIONS);
    let bound = 8 * 1024 * CONNECTIONS;
    // They keep their buffers for a moment.
    eventually("what they hold is small", || {
        (resident(pid).saturating_sub(before) < bound).then_some(())
    });
    drop(held);
    ingress.stop();
}

/// Connections that have had one answer each, and stay.
fn used(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut socket = caller::connect(address).unwrap();
            socket
                .write_all(b"GET / HTTP/1.1\r\nHost: kept.m3o.app\r\n\r\n")
                .unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nhere") {
                let mut buffer = [0; 1024];
                let count = socket.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&buffer[..count]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
            socket
        })
        .collect()
}

/// Answers request after request on each connection.
fn kept_backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the process: nothing of it outlives the tests.
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = socket.read(&mut buffer) {
                    head.extend_from_slice(&buffer[..count]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere";
                        let _gone = socket.write_all(answer);
                    }
                }
            });
        }
    });
    url
}

/// Bytes of the process that are in memory.
fn resident(pid: Pid) -> usize {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .unwrap();
    kibibytes.parse::<usize>().unwrap() * 1024
}
