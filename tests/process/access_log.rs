//! The file of the access log: rotated under load, on a full disk, and where it cannot be.

use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use serde_json::Value;

use crate::caller::get;
use crate::process::{Ingress, ended, eventually, run_command};

fn config(log: &str) -> String {
    format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}
         platform = {{ store = 'store' }}
         [log]
         {log}"
    )
}

fn start(folder: &Path, log: &str) -> Ingress {
    Ingress::start(run_command(folder, &config(log)).env("M3O_PLATFORM_KEY", "dev"))
}

fn hello(ingress: &Ingress, number: usize) {
    let target = format!("/api/helloworld/call?api_key=dev&number={number}");
    assert_eq!(get(ingress.http, "localhost", &target).status, 200);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// As many lines as there are, each an object.
#[track_caller]
fn count(text: &str) -> usize {
    let objects = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line:?}")));
    objects.filter(|line| line["type"] == "access").count()
}

fn dropped(ingress: &Ingress) -> u64 {
    let metrics = get(ingress.admin, "localhost", "/metrics").body;
    let series = "m3o_ingress_log_lines_dropped_total ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.unwrap().parse().unwrap()
}

#[test]
fn on_sigusr1_the_access_log_goes_on_in_a_new_file_without_a_line_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let ingress = start(folder.path(), "access_file = 'access.log'");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    for number in 0..20 {
        match number {
            5 => std::fs::rename(&path, &old).unwrap(),
            10 => ingress.process.signal(Signal::USR1),
            _ => {}
        }
        hello(&ingress, number);
    }
    eventually("there is a new file", || path.exists().then_some(()));
    hello(&ingress, 20);
    eventually("the new file has lines", || {
        (count(&read(&path)) > 0).then_some(())
    });
    // A file that cannot be opened anew leaves the old one where it is.
    std::fs::rename(&path, folder.path().join("access.log.2")).unwrap();
    std::fs::create_dir(&path).unwrap();
    ingress.process.signal(Signal::USR1);
    ingress.process.wrote("why it was not reopened", |text| {
        text.contains("goes on in the file that it had")
            .then_some(())
    });
    hello(&ingress, 21);
    let written = ingress.stop();
    assert!(!written.contains(r#""type":"access""#), "{written}");
    let all = read(&old) + &read(&folder.path().join("access.log.2"));
    assert_eq!(count(&all), 22, "{all}");
}

#[test]
fn without_a_file_sigusr1_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ingress = start(folder.path(), "level = 'info'");
    ingress.process.signal(Signal::USR1);
    ingress.process.wrote("that there is no file", |text| {
        text.contains("no log.access_file").then_some(())
    });
    hello(&ingress, 0);
    assert!(ingress.process.is_running());
    assert_eq!(count(&ingress.stop()), 1);
}

#[test]
fn on_a_full_disk_lines_are_dropped_and_counted_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    symlink("/dev/full", &path).unwrap();
    let ingress = start(folder.path(), "access_file = 'access.log'");
    for number in 0..10 {
        hello(&ingress, number);
    }
    eventually("ten lines are counted", || {
        (dropped(&ingress) == 10).then_some(())
    });
    std::fs::remove_file(&path).unwrap();
    ingress.process.signal(Signal::USR1);
    eventually("there is a new file", || path.exists().then_some(()));
    hello(&ingress, 10);
    eventually("the line is there", || {
        (count(&read(&path)) == 1).then_some(())
    });
    assert_eq!(dropped(&ingress), 10);
    let written = ingress.stop();
    assert_eq!(written.matches("cannot be written").count(), 1, "{written}");
    assert_eq!(written.matches("is written again").count(), 1, "{written}");
}

#[test]
fn a_pipe_that_is_not_read_costs_lines_and_none_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Nobody reads it yet.
    let refused = ended(
        run_command(folder.path(), &config("access_file = 'pipe'")).env("M3O_PLATFORM_KEY", "dev"),
    );
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text);
    assert!(
        refused.text.contains("log.access_file: `pipe`"),
        "{}",
        refused.text
    );

    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let mut reader = options.read(true).custom_flags(flags).open(&path).unwrap();
    let ingress = start(folder.path(), "access_file = 'pipe'");
    let mut sent = 0;
    // It takes 64 KiB.
    eventually("lines are dropped", || {
        hello(&ingress, sent);
        sent += 1;
        (dropped(&ingress) > 0).then_some(())
    });
    let mut text = Vec::new();
    let mut read = |text: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
    };
    read(&mut text);
    hello(&ingress, sent);
    sent += 1;
    eventually("the last one is there", || {
        read(&mut text);
        let lost = usize::try_from(dropped(&ingress)).unwrap();
        (text.iter().filter(|byte| **byte == b'\n').count() + lost == sent).then_some(())
    });
    count(&String::from_utf8(text).unwrap());
    ingress.stop();
}

#[test]
fn in_combined_all_other_lines_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run_command(folder.path(), &config(""));
    run.args(["--log-format", "combined"]);
    let ingress = Ingress::start(run.env("M3O_PLATFORM_KEY", "dev"));
    hello(&ingress, 0);
    let written = ingress.stop();
    let (access, events): (Vec<&str>, Vec<&str>) = written
        .lines()
        .partition(|line| line.starts_with("127.0.0.1 - - ["));
    let [line] = access.as_slice() else {
        panic!("{written}");
    };
    let end =
        "\"GET /api/helloworld/call?api_key=[hidden]&number=[hidden] HTTP/1.1\" 200 20 \"-\" \"-\"";
    assert!(line.ends_with(end), "{line}");
    count(&events.join("\n"));
    assert!(events.len() > 2, "{written}");
}
