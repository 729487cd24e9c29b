//! A running process reads its file again: by SIGHUP, by the verb, and when the file has changed.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::caller::{connect, get};
use crate::process::{Ingress, command, ended, eventually, run_command};

/// The embedded platform, with `more` sections.
fn config(more: &str) -> String {
    format!(
        "listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0', control = 'control' }}
         platform = {{ store = 'store' }}
         {more}"
    )
}

fn start(folder: &Path, more: &str) -> Ingress {
    let mut command = run_command(folder, &config(more));
    Ingress::start(command.env("M3O_PLATFORM_KEY", "dev"))
}

/// Puts a file in place of the one that it was started with, at once.
fn write(folder: &Path, text: &str) {
    let new = folder.join("new.toml");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, folder.join("ingress.toml")).unwrap();
}

fn series(admin: SocketAddr, name: &str) -> f64 {
    let text = get(admin, "localhost", "/metrics").body;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("{name} is not in\n{text}"))
        .parse()
        .unwrap()
}

/// Waits until so many reloads have come to this end.
#[track_caller]
fn reloaded(ingress: &Ingress, result: &str, count: f64) {
    let name = format!("m3o_ingress_config_reloads_total{{result=\"{result}\"}}");
    eventually("it is reloaded", || {
        (series(ingress.admin, &name) >= count).then_some(())
    });
}

const INDEX: &str = "index.enabled = true";

fn shows_an_index(ingress: &Ingress) -> bool {
    get(ingress.http, "m3o.app", "/").status == 200
}

#[test]
fn sighup_takes_a_good_file_over_and_says_what_is_wrong_with_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "");
    assert!(!shows_an_index(&ingress));
    write(folder.path(), &config(INDEX));
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "applied", 1.0);
    assert!(shows_an_index(&ingress));

    write(
        folder.path(),
        &config("[timeouts]\nidle = '75'\nheadr = '1s'"),
    );
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "refused", 1.0);
    let file = folder.path().join("ingress.toml");
    for place in [
        ":4:8: timeouts.idle: ",
        ":5:1: unknown key `headr`; did you mean `header`?",
    ] {
        let line = format!("{}{place}", file.display());
        ingress
            .process
            .wrote("what is wrong", |text| text.contains(&line).then_some(()));
    }
    let successful = || series(ingress.admin, "m3o_ingress_config_last_reload_successful");
    assert_eq!(successful(), 0.0);
    assert!(shows_an_index(&ingress), "what was there before stays");

    write(folder.path(), &config(""));
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "applied", 2.0);
    assert_eq!(successful(), 1.0);
    assert!(!shows_an_index(&ingress));
    let text = ingress.stop();
    assert!(text.contains("index.enabled: false -> true"), "{text}");
}

#[test]
fn many_signals_at_once_are_few_reloads_and_the_last_state_counts() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "");
    for round in 0..50 {
        let more = if round % 2 == 0 { INDEX } else { "" };
        write(folder.path(), &config(more));
        ingress.process.signal(Signal::HUP);
    }
    eventually("the last one is there", || {
        (!shows_an_index(&ingress)).then_some(())
    });
    write(folder.path(), &config(INDEX));
    ingress.process.signal(Signal::HUP);
    eventually("it still hears", || shows_an_index(&ingress).then_some(()));
    ingress.stop();
}

#[test]
fn the_level_of_the_log_changes() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "");
    for (count, level) in [(1.0, "error"), (2.0, "info"), (3.0, "error")] {
        let text = config(&format!("log.level = '{level}'"));
        write(folder.path(), &text);
        ingress.process.signal(Signal::HUP);
        reloaded(&ingress, "applied", count);
    }
    let text = ingress.stop();
    let told = text.matches("the configuration was reloaded").count();
    assert_eq!(told, 1, "{text}");
    assert!(!text.contains("draining"), "{text}");
}

#[test]
fn a_variable_speaks_over_the_level_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = run_command(folder.path(), &config(""));
    let command = command
        .env("M3O_PLATFORM_KEY", "dev")
        .env("RUST_LOG", "info");
    let ingress = Ingress::start(command);
    write(folder.path(), &config("log.level = 'error'"));
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "applied", 1.0);
    let text = ingress.stop();
    assert!(text.contains("draining"), "{text}");
}

#[test]
fn a_file_that_is_watched_is_taken_over_and_a_broken_one_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let watched = |more: &str| {
        config(&format!(
            "reload = {{ watch = true, every = '20ms' }}\n{more}"
        ))
    };
    let mut command = run_command(folder.path(), &watched(""));
    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY", "dev"));
    write(folder.path(), &watched(INDEX));
    reloaded(&ingress, "applied", 1.0);
    assert!(shows_an_index(&ingress));
    write(folder.path(), "this is no TOML");
    reloaded(&ingress, "refused", 1.0);
    // A later change comes after many looks at the broken one.
    write(folder.path(), &watched(""));
    reloaded(&ingress, "applied", 2.0);
    assert!(!shows_an_index(&ingress));
    let refused = "m3o_ingress_config_reloads_total{result=\"refused\"}";
    assert_eq!(series(ingress.admin, refused), 1.0);
    ingress.stop();
}

#[test]
fn the_verb_prints_what_changed_or_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "");
    let file = folder.path().join("ingress.toml");
    let reload = || {
        let mut command = command(&["reload", "--json", "--config", file.to_str().unwrap()]);
        ended(command.current_dir(folder.path()))
    };
    write(
        folder.path(),
        &config("index.enabled = true\nlisten.workers = 3")
            .replace(
                "control = 'control' }",
                "control = 'control', workers = 3 }",
            )
            .replace("\nlisten.workers = 3", ""),
    );
    let done = reload();
    assert_eq!(done.status.code(), Some(0), "{}", done.text);
    let report: Value = serde_json::from_str(&done.text).unwrap();
    assert_eq!(report["changed"][0]["key"], "index.enabled");
    assert_eq!(report["restart"][0]["key"], "listen.workers");
    assert!(shows_an_index(&ingress), "the very next request sees it");
    write(folder.path(), &config("limits.uri = 1"));
    let refused = reload();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text);
    assert!(refused.text.contains("limits.uri"), "{}", refused.text);
    let text = ingress.stop();
    assert!(text.contains("takes effect at a restart"), "{text}");
}

#[test]
fn a_secret_in_a_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "first\n").unwrap();
    let mut command = run_command(folder.path(), &config(""));
    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY_FILE", &secret));
    let calls = |key: &str| {
        let target = format!("/api/helloworld/call?api_key={key}");
        get(ingress.http, "localhost", &target).status
    };
    assert_eq!((calls("first"), calls("second")), (200, 401));
    std::fs::write(&secret, "second\n").unwrap();
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "applied", 1.0);
    assert_eq!((calls("first"), calls("second")), (401, 200));
    let text = ingress.stop();
    assert!(!text.contains("second"), "{text}");
}

#[test]
fn a_reload_that_is_refused_revokes_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "first\n").unwrap();
    let mut command = run_command(folder.path(), &config(""));
    let ingress = Ingress::start(command.env("M3O_PLATFORM_KEY_FILE", &secret));
    std::fs::write(&secret, "second\n").unwrap();
    // A socket is no file to write to.
    write(folder.path(), &config("log.access_file = 'control'"));
    ingress.process.signal(Signal::HUP);
    reloaded(&ingress, "refused", 1.0);
    let target = "/api/helloworld/call?api_key=first";
    assert_eq!(get(ingress.http, "localhost", target).status, 200);
    let text = ingress.stop();
    assert!(
        text.contains("as it was: log.access_file: `control`"),
        "{text}"
    );
}

#[test]
fn dev_has_no_file_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    ingress.process.signal(Signal::HUP);
    ingress.process.wrote("that there is no file", |text| {
        text.contains("no file to read its configuration from")
            .then_some(())
    });
    let hello = get(
        ingress.http,
        "localhost",
        "/api/helloworld/call?api_key=dev",
    );
    assert_eq!(hello.status, 200);
    ingress.stop();
}

#[test]
fn a_hundred_reloads_leave_no_descriptor_no_task_and_no_memory_behind() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = start(folder.path(), "");
    let _held = connect(ingress.http).unwrap();
    let pid = ingress.process.pid().as_raw_nonzero();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    let memory = || series(ingress.admin, "process_resident_memory_bytes");
    let round = |number: usize| {
        let two = number.is_multiple_of(2);
        let http = if two {
            "['127.0.0.1:0', '127.0.0.1:0']"
        } else {
            "'127.0.0.1:0'"
        };
        let text = config(&format!("backends.per_backend = {}", 10 + number));
        write(folder.path(), &text.replacen("'127.0.0.1:0'", http, 1));
        ingress.process.signal(Signal::HUP);
        reloaded(&ingress, "applied", (number + 1) as f64);
        assert_eq!(get(ingress.http, "m3o.app", "/").status, 404);
    };
    for number in 0..10 {
        round(number);
    }
    let (open, tasks, used) = (
        descriptors(),
        series(ingress.admin, "m3o_ingress_tasks"),
        memory(),
    );
    for number in 10..110 {
        round(number);
    }
    eventually("no descriptor is left", || {
        (descriptors() <= open).then_some(())
    });
    eventually("no task is left", || {
        (series(ingress.admin, "m3o_ingress_tasks") <= tasks).then_some(())
    });
    let grown = memory() - used;
    assert!(grown < 8e6, "{grown} bytes more after a hundred reloads");
    ingress.stop();
}
