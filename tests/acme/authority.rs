//! Pebble with its name server, and a [`Directory`] in front of it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use m3o_ingress::tls::challenges::Challenges;
use tempfile::TempDir;

use crate::directory::Directory;
use crate::front::{Front, Pages};
use crate::running::{Program, free_port, loopback};

/// An authority, what stands in front of it, and what answers its challenges.
pub(crate) struct Authority {
    pub(crate) directory: Directory,
    pub(crate) challenges: Arc<Challenges>,
    /// Where the answers to names are set.
    names: Option<u16>,
    /// Where it asks for names itself.
    pub(crate) dns: u16,
    pub(crate) folder: TempDir,
    _programs: Vec<Program>,
    pub(crate) front: Front,
}

/// How an authority is to behave.
#[derive(Default)]
pub(crate) struct Wish {
    /// Of a hundred good nonces, so many are called bad.
    pub(crate) bad_nonces: u8,
    /// An external account, `kid` and key, that every account must be bound to.
    pub(crate) binding: Option<(&'static str, &'static str)>,
    /// The name server that it asks; none: one of its own, to which every name is at loopback.
    pub(crate) name_server: Option<u16>,
    /// Where it looks for pages and for certificates; none: where a [`Front`] answers.
    pub(crate) ports: Option<(u16, u16)>,
    /// What pages it finds.
    pub(crate) pages: Pages,
}

impl Authority {
    pub(crate) fn start() -> Self {
        Self::start_with(&Wish::default())
    }

    pub(crate) fn start_with(wish: &Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let certificate_file = write("authority.pem", &certificate.pem());
        let key_file = write("authority.key", &key.serialize_pem());
        let challenges = Challenges::new();
        let front = Front::start(Arc::clone(&challenges), wish.pages);

        let (http, https) = wish.ports.unwrap_or((front.http, front.https));

        let mut programs = Vec::new();
        let (names, dns) = match wish.name_server {
            Some(port) => (None, port),
            None => {
                let (management, dns) = (free_port(), free_port());
                programs.push(Program::start(
                    Command::new("pebble-challtestsrv")
                        .args(["-defaultIPv6", "", "-http01", "", "-https01", ""])
                        .args(["-tlsalpn01", "", "-dns01", &loopback(dns).to_string()])
                        .args(["-management", &loopback(management).to_string()]),
                    management,
                ));
                (Some(management), dns)
            }
        };
        let port = free_port();
        let binding = wish.binding.iter().copied();
        let config = serde_json::json!({"pebble": {
            "listenAddress": loopback(port),
            "managementListenAddress": loopback(free_port()),
            "certificate": certificate_file,
            "privateKey": key_file,
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": wish.binding.is_some(),
            "externalAccountMACKeys": binding.collect::<std::collections::HashMap<_, _>>(),
        }});
        let config = write("pebble.json", &config.to_string());
        programs.push(Program::start(
            Command::new("pebble")
                .args(["-dnsserver", &loopback(dns).to_string(), "-config"])
                .arg(config)
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "0")
                .env("PEBBLE_WFE_NONCEREJECT", wish.bad_nonces.to_string()),
            port,
        ));
        Self {
            directory: Directory::start(loopback(port), &certificate, &key),
            challenges,
            names,
            dns,
            folder,
            _programs: programs,
            front,
        }
    }

    /// The file with the certificate that it is trusted by.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// A program that sets records at the authority's own name server.
    pub(crate) fn hook(&self) -> PathBuf {
        let script = format!(
            r#"#!/bin/sh
# Called as: hook present|cleanup NAME VALUE
set -eu
echo "$1 $2" >> {log}
case $1 in
    present) path=set-txt ;;
    cleanup) path=clear-txt ;;
    *) exit 64 ;;
esac
exec curl --fail --silent --show-error --max-time 20 \
    --data "{{\"host\":\"$2.\",\"value\":\"$3\"}}" http://{management}/$path
"#,
            log = self.hook_log().display(),
            management = loopback(self.names.unwrap()),
        );
        let path = self.folder.path().join("hook");
        std::fs::write(&path, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    /// Has `name` lead to an address where nobody listens. Every name leads here else.
    pub(crate) fn lead_elsewhere(&self, name: &str) {
        self.manage(
            "add-a",
            &serde_json::json!({"host": name, "addresses": ["127.0.0.2"]}),
        );
    }

    /// Has it lead here again.
    pub(crate) fn lead_here(&self, name: &str) {
        self.manage("clear-a", &serde_json::json!({"host": name}));
    }

    #[track_caller]
    fn manage(&self, path: &str, told: &serde_json::Value) {
        let url = format!("http://{}/{path}", loopback(self.names.unwrap()));
        let curl = Command::new("curl")
            .args(["--fail", "--silent", "--show-error", "--max-time", "20"])
            .args(["--data", &told.to_string(), &url])
            .status();
        assert!(curl.unwrap().success(), "{path} {told}");
    }

    fn hook_log(&self) -> PathBuf {
        self.folder.path().join("hook.log")
    }

    /// What the hook was told.
    pub(crate) fn hook_calls(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.hook_log()).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}
