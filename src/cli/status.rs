//! `m3o-ingress status` and `health`: how a running ingress is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use m3o_ingress::config::{Environment, Reached};
use serde_json::Value;

use super::control::{Control, ControlFlags, JsonFlag, NoAnswer, reason};
use super::{Failure, print};

/// Prints what it is and does.
pub(super) fn status(flags: &ControlFlags, json: &JsonFlag, config: &Path) -> Result<(), Failure> {
    let status = Control::find(flags, config)?.get("/status")?;
    if json.json {
        return print(&format!("{status:#}\n"));
    }
    print(&table(&status))
}

fn table(status: &Value) -> String {
    let text = |key: &str| match &status[key] {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            values.join(", ")
        }
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let ready = if status["ready"] == true { "yes" } else { "no" };
    let uptime = status["uptime_seconds"].as_u64().unwrap_or_default();
    let rows = [
        ("version", text("version")),
        ("process", text("pid")),
        ("up", since(uptime)),
        ("ready", ready.to_owned()),
        ("connections", text("connections")),
        ("workers", text("workers")),
        ("http", text("http")),
        ("https", text("https")),
        ("admin", text("admin")),
        ("api", text("api")),
    ];
    let rows = rows.into_iter().filter(|(_, value)| !value.is_empty());
    rows.map(|(name, value)| format!("{name:<12} {value}\n"))
        .collect()
}

/// Days, hours, minutes and seconds, the largest first, the zeros before it left out.
fn since(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let parts: Vec<String> = parts[first..]
        .iter()
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    parts.join(" ")
}

/// Ends well if the ingress takes requests: it is asked over the control socket, else at the admin address.
pub(super) fn health(flags: &ControlFlags, config: &Path) -> Result<(), Failure> {
    let ready = is_ready(flags, config);
    match ready.map_err(|failure| Failure::Health(Box::new(failure)))? {
        true => print("ok\n"),
        false => Err(Failure::NotReady),
    }
}

fn is_ready(flags: &ControlFlags, config: &Path) -> Result<bool, Failure> {
    let ask = || Control::find(flags, config)?.patient(PATIENCE).is_ready();
    if flags.is_set() {
        return ask();
    }
    let reached = Reached::load(config, &Environment::of_this_process());
    let Reached { control, admin } = reached.map_err(Failure::Configuration)?;
    match (control, admin) {
        (None, Some(admin)) => readyz(admin),
        (_, None) => ask(),
        (Some(_), Some(admin)) => ask().or_else(|failure| match failure {
            // The file may name another socket than the process was started with.
            Failure::Control(NoAnswer::Silent { .. }) => readyz(admin).map_err(|_| failure),
            failure => Err(failure),
        }),
    }
}

/// What the admin address says.
fn readyz(admin: SocketAddr) -> Result<bool, Failure> {
    asked(admin).map_err(|error| {
        Failure::Control(NoAnswer::Broken {
            place: admin.to_string(),
            reason: reason(&error, PATIENCE),
        })
    })
}

fn asked(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_begins_with_what_there_is_of_it() {
        let check = |seconds, expected: &str| assert_eq!(since(seconds), expected);
        check(0, "0s");
        check(59, "59s");
        check(60, "1m 0s");
        check(86_400 + 7, "1d 0h 0m 7s");
    }

    #[test]
    fn a_table_leaves_out_what_there_is_not() {
        let status = serde_json::json!({
            "version": "1", "pid": 7, "uptime_seconds": 61, "ready": true, "connections": 2,
            "workers": 1, "http": ["127.0.0.1:80", "[::1]:80"], "https": [], "admin": null, "api": "x",
        });
        let expected = "\
version      1
process      7
up           1m 1s
ready        yes
connections  2
workers      1
http         127.0.0.1:80, [::1]:80
api          x
";
        assert_eq!(table(&status), expected);
    }
}
