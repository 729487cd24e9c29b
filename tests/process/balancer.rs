//! A load balancer that was not written here, in front of the binary: haproxy, which names its clients.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::process::{Ingress, run_command};

/// A running haproxy. Killed when dropped.
struct Balancer {
    child: Child,
    address: SocketAddr,
}

impl Balancer {
    /// One that passes connections on to `to`, with what `options` say.
    fn start(folder: &std::path::Path, to: SocketAddr, options: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // It takes the socket over, so that its port is nobody else's.
        fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        let file = folder.join("haproxy.cfg");
        let config = format!(
            "global\n  maxconn 64\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10s\n  \
             timeout server 10s\nlisten ingress\n  bind fd@{}\n  server one {to} {options}\n",
            listener.as_raw_fd(),
        );
        std::fs::write(&file, config).unwrap();
        // It is kept where only the administrator looks.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = Command::new("haproxy")
            .env("PATH", path)
            .args(["-q", "-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("haproxy is needed, run tests/setup: {error}"));
        Self {
            child,
            address: listener.local_addr().unwrap(),
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What curl gets from `address`, connecting from 127.0.0.9.
#[track_caller]
fn curl(address: SocketAddr, options: &[&str]) -> String {
    let url = format!("http://{address}/nowhere");
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--noproxy", "*"])
        .args(["--interface", "127.0.0.9", "--write-out", "%{http_code}"])
        .args(options)
        .arg(&url)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_clients_of_a_load_balancer_are_known_by_the_address_that_it_announces() {
    let folder = tempfile::tempdir().unwrap();
    let config = "
        listen = { http = '127.0.0.1:0', admin = '127.0.0.1:0', proxy_protocol = '127.0.0.1:0' }
        backends.trusted_proxies = '127.0.0.1/32'
        platform.store = 'memory'
        log.format = 'json'
    ";
    let mut command = run_command(folder.path(), config);
    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY", "key"));
    let ways = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 check inter 50ms",
    ];
    for (known, options) in ways.into_iter().enumerate() {
        let balancer = Balancer::start(folder.path(), ingress.http, options);
        let answer = curl(balancer.address, &[]);
        assert!(answer.ends_with("404"), "{options}: {answer}");
        ingress.process.wrote("who asked", |text| {
            let lines = text.matches(r#""client.address":"127.0.0.9""#).count();
            (lines > known).then_some(())
        });
    }
    // curl is not trusted where it connects from, whatever it announces.
    assert!(curl(ingress.http, &["--haproxy-protocol"]).ends_with("000"));
    let text = ingress.stop();
    assert_eq!(
        text.matches("not in backends.trusted_proxies").count(),
        1,
        "{text}"
    );
    assert!(!text.contains("cannot be read"), "{text}");
}
