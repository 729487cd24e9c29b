//! named, with one zone that whoever has the key may change.

use std::path::Path;
use std::process::Command;

use crate::running::{Program, free_port, loopback};

/// A name server for `ours.test`.
pub(crate) struct NameServer {
    pub(crate) port: u16,
    _program: Program,
    _folder: tempfile::TempDir,
}

/// The key that may change the zone, in base64.
pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

impl NameServer {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let here = folder.path().display().to_string();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        write("ours.zone", ZONE);
        let config = format!(
            r#"options {{
    directory "{here}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
    notify no;
}};
controls {{ }};
key "acme" {{ algorithm hmac-sha256; secret "{KEY}"; }};
zone "ours.test" {{
    type primary;
    file "ours.zone";
    update-policy {{ grant acme zonesub TXT; }};
}};
"#
        );
        let config = write("named.conf", &config);
        Self {
            port,
            _program: Program::start(&mut named(&config), port),
            _folder: folder,
        }
    }

    /// The section that names it.
    pub(crate) fn section(&self, zone: &str) -> String {
        format!(
            "[dns.update]\nserver = '{}'\nzone = '{zone}'\nkey_name = 'acme'\nkey_env = 'X'\nwait = '10s'",
            loopback(self.port)
        )
    }

    /// The texts at a name, as its own client sees them.
    pub(crate) fn texts(&self, name: &str) -> String {
        let answer = Command::new("dig")
            .args([
                "+short",
                "+tcp",
                "@127.0.0.1",
                "-p",
                &self.port.to_string(),
                name,
                "TXT",
            ])
            .output()
            .unwrap();
        assert!(answer.status.success(), "{answer:?}");
        String::from_utf8(answer.stdout).unwrap()
    }
}

fn named(config: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/named");
    command.arg("-g").arg("-c").arg(config);
    command
}

const ZONE: &str = "$TTL 60
@ IN SOA ns.ours.test. admin.ours.test. 1 60 60 60 60
@ IN NS ns.ours.test.
ns IN A 127.0.0.1
@ IN A 127.0.0.1
* IN A 127.0.0.1
";
