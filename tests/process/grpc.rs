//! Calls of gRPC to a server that was not written here (grpcio), as a backend at `h2c://`: written by hand,
//! and made by a client of that kind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::caller::{api, connect};
use crate::process::{Ingress, Process};
use crate::tools;

/// A message with its prefix, as a chunk of a body over HTTP/1.1.
fn message(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    let mut chunk = format!("{:x}\r\n\0", text.len() + 5).into_bytes();
    chunk.extend(length.to_be_bytes());
    chunk.extend(text.bytes());
    chunk.extend(b"\r\n");
    chunk
}

/// Reads until `end` is there.
#[track_caller]
fn until(socket: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

/// A server of grpcio, and its port.
#[track_caller]
fn server() -> (Process, u16) {
    let mut python = tools::python();
    python.arg(tools::folder("tests/python/grpcserver.py"));
    // Its input stays open as long as the test.
    let server = Process::spawn(python.stdin(Stdio::piped()));
    let port = server.wrote("its port", |text| text.split_once('\n')?.0.parse().ok());
    (server, port)
}

/// Runs an app of `name` at `h2c://`.
#[track_caller]
fn run_app(ingress: &Ingress, name: &str, port: u16) {
    let backend = json!({"name": name, "backend": format!("h2c://127.0.0.1:{port}")});
    api(ingress.http, "dev", "app/Run", &backend).fine();
}

#[test]
fn a_client_of_grpc_does_all_over_https_that_it_does_at_the_server() {
    let (_server, port) = server();
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    run_app(&ingress, "grpc", port);
    // A port that is taken, and where nobody listens.
    let down = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    down.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let taken = down.local_addr().unwrap().as_socket().unwrap();
    run_app(&ingress, "down", taken.port());
    for host in ["grpc.app.localhost", "grpc.m3o.app"] {
        let mut client = tools::python();
        client
            .arg(tools::folder("tests/python/grpcclient.py"))
            .arg(ingress.https_port())
            .arg(folder.path().join("ca.crt"))
            .arg(host);
        let ended = Process::spawn(&mut client).end();
        let said = ended.text;
        assert!(ended.status.success(), "{said}");
        assert!(said.ends_with("all is as expected\n"), "{said}");
    }
    ingress.stop();
}

#[test]
fn a_server_of_grpc_is_called_and_streamed_with_over_h2c() {
    let (_server, port) = server();
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    run_app(&ingress, "grpc", port);
    let call = |method: &str| {
        let mut socket = connect(ingress.http).unwrap();
        let head = format!(
            "POST /test.Echo/{method} HTTP/1.1\r\nHost: grpc.app.localhost\r\nTE: trailers\r\n\
             Connection: TE\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };

    let mut socket = call("Unary");
    socket.write_all(&message("hello")).unwrap();
    socket.write_all(b"0\r\n\r\n").unwrap();
    assert!(until(&mut socket, "\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    let answer = until(&mut socket, "\r\n\r\n");
    assert!(
        answer.contains("re:hello\r\n0\r\ngrpc-status: 0\r\n"),
        "{answer}"
    );
    assert!(answer.contains("x-length: 5\r\n"), "{answer}");

    // An error without a message has its trailers for a head.
    let mut socket = call("Unary");
    socket.write_all(&message("missing")).unwrap();
    socket.write_all(b"0\r\n\r\n").unwrap();
    let answer = until(&mut socket, "\r\n\r\n");
    assert!(
        answer.contains("grpc-status: 5\r\ngrpc-message: no such thing\r\n"),
        "{answer}"
    );

    let mut socket = call("Stream");
    for text in ["one", "two", "three"] {
        socket.write_all(&message(text)).unwrap();
        until(&mut socket, &format!("re:{text}"));
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    until(&mut socket, "\r\n0\r\ngrpc-status: 0\r\n");
    ingress.stop();
}
