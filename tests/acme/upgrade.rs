//! Two processes of one service: one of them orders.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::authority::{Authority, Wish};
use crate::ours::Ours;
use crate::running::{eventually, free_port, loopback};
use crate::whole::get;

#[test]
fn what_the_process_before_obtains_to_the_end_is_served_and_not_ordered_again() {
    let authority = Authority::start();
    let directory = &authority.directory;
    let wanted = "names = ['a.ours.test']";
    let opened = directory.hold();
    let first = Ours::start(&authority, wanted);
    eventually("its order", || {
        (directory.asked("order-plz") == 1).then_some(())
    });
    // There is nothing in the folder yet.
    let second = Ours::start(&authority, wanted);
    drop(opened);
    let certificate = first.certificate("a.ours.test");
    assert!(second.keyring.find("a.ours.test").is_none());
    first.stop();
    let taken = second.certificate("a.ours.test");
    assert_eq!(taken.not_after(), certificate.not_after());
    assert_eq!(second.orders("issued"), 0);
    assert_eq!(directory.asked("order-plz"), 1);
}

/// A process of the binary, and those that follow it. Killed when dropped.
struct Service {
    first: Child,
    log: std::path::PathBuf,
    current: Pid,
}

impl Service {
    fn start(folder: &Path, config: &str) -> Self {
        let (file, log) = (folder.join("ingress.toml"), folder.join("log"));
        std::fs::write(&file, config).unwrap();
        let output = File::create(&log).unwrap();
        let first = Command::new(env!("CARGO_BIN_EXE_m3o-ingress"))
            .args(["run", "--config"])
            .arg(&file)
            .env_clear()
            .env("M3O_API_TOKEN", "token")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(output.try_clone().unwrap())
            .stdout(output)
            .spawn()
            .unwrap();
        Self {
            current: Pid::from_child(&first),
            first,
            log,
        }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Replaces the process by a new one, and waits until that is alone.
    #[track_caller]
    fn upgrade(&mut self) {
        kill_process(self.current, Signal::USR2).unwrap();
        self.current = eventually("an upgrade", || {
            let text = self.text();
            assert!(!text.contains("the upgrade has failed"), "{text}");
            let line = text
                .lines()
                .find(|line| line.contains("upgraded: the new"))?;
            let line: Value = serde_json::from_str(line).unwrap();
            Pid::from_raw(i32::try_from(line["pid"].as_i64()?).unwrap())
        });
        assert!(self.first.wait().unwrap().success(), "{}", self.text());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = kill_process(self.current, Signal::KILL);
        let _gone = self.first.kill();
        let _ended = self.first.wait();
    }
}

#[test]
fn an_ingress_that_orders_is_upgraded_and_the_new_process_orders_from_then_on() {
    let (http, https) = (free_port(), free_port());
    let authority = Authority::start_with(&Wish {
        ports: Some((http, https)),
        ..Wish::default()
    });
    let folder = authority.folder.path();
    let config = format!(
        "[listen]\nhttp = '{}'\nhttps = '{}'\nworkers = 1\n\
         [backends]\ndns = '{}'\n[hosts]\nuser = 'user.ours.test'\n\
         [api]\naddress = 'http://127.0.0.1:1'\n[tls]\ncerts = 'none'\n\
         [tls.acme]\ndirectory = '{}'\nca = '{}'\nagree = true\nfolder = 'acme'\n\
         on_demand = true\nnames = ['a.ours.test']\n[log]\nformat = 'json'\n",
        loopback(http),
        loopback(https),
        loopback(authority.dns),
        authority.directory.url(),
        authority.certificate_file().display(),
    );
    let mut service = Service::start(folder, &config);
    let shown = |name| get(https, name, "/").ok();
    eventually("a certificate", || shown("a.ours.test"));
    let orders = || authority.directory.asked("order-plz");
    assert_eq!(orders(), 1);

    service.upgrade();
    let (names, _) = shown("a.ours.test").expect("it is served as before");
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(orders(), 1, "it is not ordered again");
    eventually("an order of the new process", || shown("user.ours.test"));
    assert_eq!(orders(), 2);
    assert_eq!(authority.directory.accounts(), 1);
}
