//! Lines from many threads to one place, or another.

use std::sync::mpsc::{Receiver, sync_channel};

use super::*;

fn line(text: &str) -> impl FnOnce(&mut Vec<u8>) {
    move |out| out.extend_from_slice(text.as_bytes())
}

#[test]
fn every_line_is_scrubbed_and_written_before_the_end() {
    let output = Capture::default();
    let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
    writer.log().write(b"one token=canary\n");
    writer.log().write(b"two\n");
    writer.log().access(line("three\n"));
    writer.finish();
    let text = output.text();
    assert!(text.contains("one token=[hidden]\ntwo\n"), "{text}");
    assert!(text.contains("three\n"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn what_threads_write_at_once_stays_in_lines() {
    let output = Capture::default();
    let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
    let threads: Vec<_> = (0..20)
        .map(|number| {
            let log = writer.log();
            std::thread::spawn(move || {
                for count in 0..500 {
                    log.access(line(&format!("{number} {count}\n")));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    writer.finish();
    let text = output.text();
    let mut lines: Vec<(u32, u32)> = text
        .lines()
        .map(|line| {
            let (number, count) = line.split_once(' ').unwrap();
            (number.parse().unwrap(), count.parse().unwrap())
        })
        .collect();
    lines.sort_unstable();
    let all = (0..20).flat_map(|number| (0..500).map(move |count| (number, count)));
    assert!(lines.into_iter().eq(all));
}

/// A reader that takes nothing until it is told to go.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
        let _never = self.0.recv();
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_queue_costs_lines_and_counts_them() {
    let metrics = Metrics::new();
    let (_stays, never) = sync_channel(0);
    let writer = Log::start(Style::Json, Arc::clone(&metrics), Stuck(never)).unwrap();
    let config = Config {
        buffer: 4096,
        ..Config::default()
    };
    let log = writer.log();
    log.apply(log.open(&config).unwrap());
    // What is taken to be written has left its buffer.
    for _ in 0..2000 {
        writer.log().access(line("a line of the log\n"));
    }
    assert!(metrics.log_lines_dropped.get() > 1000);
}

#[test]
fn a_reader_that_takes_nothing_holds_the_end_up_for_a_moment_only() {
    let (_stays, never) = sync_channel(0);
    let writer = Log::start(Style::Json, Metrics::new(), Stuck(never)).unwrap();
    writer.log().write(b"line\n");
    writer.finish();
}

#[test]
fn an_output_that_is_stuck_holds_up_no_file_of_the_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (_stays, never) = sync_channel(0);
    let writer = Log::start(Style::Json, Metrics::new(), Stuck(never)).unwrap();
    let log = writer.log();
    let config = Config {
        access_file: path("access.log"),
        ..Config::default()
    };
    log.apply(log.open(&config).unwrap());
    let wait_for = |name: &str, text: &str| {
        let began = Instant::now();
        while std::fs::read_to_string(path(name)).unwrap_or_default() != text {
            assert!(began.elapsed() < Duration::from_secs(10), "{text}");
            std::thread::yield_now();
        }
    };
    log.write(b"event\n");
    log.access(line("one\n"));
    wait_for("access.log", "one\n");
    std::fs::rename(path("access.log"), path("old.log")).unwrap();
    log.reopen();
    log.access(line("two\n"));
    wait_for("access.log", "two\n");
    wait_for("old.log", "one\n");
}

#[test]
fn the_access_log_moves_to_a_file_and_back_without_a_line_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let output = Capture::default();
    let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
    let log = writer.log();
    let to = |file: PathBuf| Config {
        access_file: file,
        format: Format::Combined,
        ..Config::default()
    };
    log.apply(log.open(&to(path("access.log"))).unwrap());
    assert_eq!(log.layout(), Layout::Combined);
    for number in 0..1000 {
        if number == 300 {
            std::fs::rename(path("access.log"), path("old.log")).unwrap();
        }
        // As logrotate does, some time after it has moved the file.
        if number == 500 {
            log.reopen();
        }
        log.access(line(&format!("{number}\n")));
    }
    assert!(log.open(&to(folder.path().to_owned())).is_err());
    log.write(b"event\n");
    writer.finish();
    let read = |name| std::fs::read_to_string(path(name)).unwrap_or_default();
    let text = read("old.log") + &read("access.log");
    let numbers = text.lines().map(|line| line.parse::<u32>().unwrap());
    assert!(numbers.eq(0..1000), "{text}");
    assert_eq!(output.text(), "event\n");
}
