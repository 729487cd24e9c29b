//! The access log: what a line says of a real request, which requests have one, and where it goes.

use std::path::Path;

use m3o_ingress::telemetry::Format;
use m3o_ingress::units::Share;
use serde_json::Value;

use super::harness::backend::ok;
use super::harness::front::{BLOG, Front};
use super::harness::{TestIngress, eventually};

/// The lines of requests, once there are so many.
#[track_caller]
fn lines(ingress: &TestIngress, count: usize) -> Vec<Value> {
    let lines = || {
        let mut lines = ingress.access_lines();
        lines.retain(|line| line["type"] == "access");
        lines
    };
    eventually("the lines are there", || lines().len() >= count);
    lines()
}

#[test]
fn a_line_says_what_the_fields_of_opentelemetry_say() {
    let front = Front::scripted(|answering| {
        answering.body();
        answering.write(ok("four"));
    });
    let mut caller = front.ingress.caller();
    let fields = "User-Agent: curl/8 \"x\"\r\nReferer: http://blog.m3o.app/\r\n";
    let reply = caller.post(BLOG, "/a?b=c", fields, b"12345").expect(200);
    let line = &lines(&front.ingress, 1)[0];
    let backend = front.backend.address.to_string();
    for (field, value) in [
        ("client.address", "127.0.0.1"),
        ("http.request.method", "POST"),
        ("url.scheme", "http"),
        ("server.address", BLOG),
        ("url.path", "/a"),
        ("url.query", "b=[hidden]"),
        ("network.protocol.version", "1.1"),
        ("route", "app"),
        ("app", "blog"),
        ("cache", "miss"),
        ("outcome", "complete"),
        ("backend.address", &backend),
        ("user_agent.original", "curl/8 \"x\""),
        ("request_id", reply.field("X-Request-Id").unwrap()),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    for (field, value) in [
        ("http.response.status_code", 200),
        ("http.request.body.size", 5),
        ("http.response.body.size", 4),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    let number = |field: &str| line[field].as_f64().unwrap();
    assert!(number("backend.duration_ms") <= number("duration_ms"));
    let time: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!(age.abs() < jiff::SignedDuration::from_mins(5), "{line}");
    for absent in [
        "trace_id",
        "sample_rate",
        "proxy_error",
        "tls.protocol.version",
    ] {
        assert!(line[absent].is_null(), "{absent} in {line}");
    }
}

#[test]
fn the_size_of_a_body_is_what_was_read_of_it_however_it_was_framed() {
    let front = Front::new();
    let mut caller = front.ingress.caller();
    caller.send(format!(
        "POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nA: b\r\n\r\n"
    ));
    caller.reply().expect(200);
    caller.get(BLOG, "/").expect(200);
    let lines = lines(&front.ingress, 2);
    assert_eq!(lines[0]["http.request.body.size"], 7);
    assert_eq!(lines[1]["http.request.body.size"], 0);
}

#[test]
fn a_share_of_what_went_well_has_a_line_and_everything_else() {
    let front = Front::scripted_with(
        |config| config.log.sample = Share::parse("1/10").unwrap(),
        |answering| {
            answering.body();
            match answering.target().as_str() {
                "/missing" => answering.write("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
                _ => answering.write(ok("")),
            }
        },
    );
    let mut caller = front.ingress.caller();
    for _ in 0..30 {
        caller.get(BLOG, "/fine").expect(200);
        caller.get(BLOG, "/missing").expect(404);
    }
    let lines = lines(&front.ingress, 33);
    let fine: Vec<&Value> = lines
        .iter()
        .filter(|line| line["url.path"] == "/fine")
        .collect();
    assert_eq!((lines.len(), fine.len()), (33, 3));
    for line in fine {
        assert_eq!(line["sample_rate"], 0.1, "{line}");
    }
    let missing = lines.iter().find(|line| line["url.path"] == "/missing");
    assert!(missing.unwrap()["sample_rate"].is_null());
}

#[test]
fn what_is_slow_has_a_line_whatever_the_share() {
    let front = Front::scripted_with(
        |config| {
            config.log.sample = Share::NONE;
            config.log.slow = std::time::Duration::from_millis(50);
        },
        |answering| {
            answering.body();
            if answering.target() == "/slow" {
                std::thread::park_timeout(std::time::Duration::from_millis(120));
            }
            answering.write(ok(""));
        },
    );
    front.ingress.get(BLOG, "/slow").expect(200);
    let lines = lines(&front.ingress, 1);
    assert_eq!(lines[0]["url.path"], "/slow");
    assert!(lines[0]["duration_ms"].as_f64().unwrap() >= 50.0);
}

fn in_file(path: &Path, format: Format) -> Front {
    let path = path.to_owned();
    Front::scripted_with(
        move |config| {
            config.log.access_file = path;
            config.log.format = format;
        },
        |answering| {
            answering.body();
            answering.write(ok("four"));
        },
    )
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn in_combined_a_line_is_what_tools_for_nginx_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let front = in_file(&path, Format::Combined);
    let fields = "User-Agent: a \"b\"\\\r\n\
                  Referer: http://blog.m3o.app/x?token=zqsecretqz\r\n";
    front
        .ingress
        .caller()
        .ask("GET", "/a?api_key=zqsecretqz", BLOG, fields)
        .expect(200);
    eventually("the line is there", || read(&path).ends_with('\n'));
    let text = read(&path);
    let (before, after) = text.split_once(" +0000] ").unwrap();
    assert!(before.starts_with("127.0.0.1 - - ["), "{text}");
    assert_eq!(
        after,
        "\"GET /a?api_key=[hidden] HTTP/1.1\" 200 4 \
         \"http://blog.m3o.app/x?token=[hidden]\" \"a \\x22b\\x22\\x5C\"\n"
    );
    assert!(
        !front.ingress.log().contains("blog"),
        "{}",
        front.ingress.log()
    );
}

#[test]
fn under_load_a_file_that_is_rotated_loses_and_doubles_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let front = in_file(&path, Format::Json);
    let mut caller = front.ingress.caller();
    for number in 0..200 {
        if number % 50 == 20 {
            let old = folder.path().join(format!("access.log.{number}"));
            std::fs::rename(&path, old).unwrap();
        }
        if number % 50 == 30 {
            front.ingress.log_writer().reopen();
        }
        caller.get(BLOG, &format!("/{number}")).expect(200);
    }
    let all = || {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let text: String = files.map(|file| read(&file.unwrap().path())).collect();
        let mut numbers: Vec<u32> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["url.path"].as_str().unwrap()[1..].parse().unwrap()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    eventually("every line is there", || all().len() >= 200);
    assert!(all().into_iter().eq(0..200));
    assert!(std::fs::read_dir(folder.path()).unwrap().count() > 4);
}
