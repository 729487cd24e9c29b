//! Our side: what the control thread runs, with a keyring to look into.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use m3o_ingress::acme::{Acme, Known, Secrets, Shared};
use m3o_ingress::credentials::Secret;
use m3o_ingress::hosts::Hosts;
use m3o_ingress::pool::{Dialer, Guard, Pool, PoolLimits};
use m3o_ingress::telemetry::log::Capture;
use m3o_ingress::telemetry::metrics::Metrics;
use m3o_ingress::tls::certificate::Certificate;
use m3o_ingress::tls::keyring::Keyring;
use m3o_ingress::tls::on_demand::{Asked, OnDemand};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::authority::Authority;
use crate::running::eventually;

/// One run. Stopped and joined when dropped.
pub(crate) struct Ours {
    pub(crate) keyring: Arc<Keyring>,
    metrics: Arc<Metrics>,
    on_demand: Option<Arc<dyn OnDemand>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Every name below this is known.
pub(crate) const OURS: &str = ".ours.test";

/// Who is asked about this name twice, panics: after its handshake, what orders asks.
pub(crate) const PANICS: &str = "panics.ours.test";

#[derive(Default)]
struct BelowOurs(AtomicBool);

impl Known for BelowOurs {
    fn is_known(&self, name: &str) -> bool {
        assert!(name != PANICS || !self.0.swap(true, Ordering::Relaxed));
        name.ends_with(OURS)
    }
}

/// The folder that all runs at one authority share.
pub(crate) fn folder(authority: &Authority) -> PathBuf {
    authority.folder.path().join("acme")
}

impl Ours {
    /// Runs with `more` in `[tls.acme]`.
    pub(crate) fn start(authority: &Authority, more: &str) -> Self {
        Self::start_with(authority, more, Secrets::default())
    }

    pub(crate) fn start_with(authority: &Authority, more: &str, secrets: Secrets) -> Self {
        Self::start_at(&authority.directory.url(), authority, more, secrets)
    }

    pub(crate) fn start_at(
        directory: &str,
        authority: &Authority,
        more: &str,
        secrets: Secrets,
    ) -> Self {
        log();
        let ca = authority.certificate_file();
        let retry = if more.contains("retry =") {
            ""
        } else {
            "retry = '300ms'\n"
        };
        let text = format!("directory = '{directory}'\nagree = true\n{retry}{more}");
        let config: m3o_ingress::acme::Config = toml::from_str(&text).unwrap();
        let shared = Shared {
            keyring: Keyring::new(),
            challenges: Arc::clone(&authority.challenges),
            metrics: Metrics::new(),
        };
        let (keyring, metrics) = (Arc::clone(&shared.keyring), Arc::clone(&shared.metrics));
        let folder = folder(authority);
        let (stop, stopped) = oneshot::channel::<()>();
        let (opened, open) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let names = config.names_for(&Hosts::default());
            let known = Arc::new(BelowOurs::default());
            let acme = Acme::open(config, &folder, names, &secrets, shared, known).unwrap();
            opened.send(acme.on_demand()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .unwrap();
            runtime.block_on(async {
                let stop = async {
                    let _said = stopped.await;
                };
                acme.run(pool(&ca), stop).await;
            });
        });
        Self {
            keyring,
            metrics,
            on_demand: open.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits for a certificate for `name`.
    #[track_caller]
    pub(crate) fn certificate(&self, name: &str) -> Arc<Certificate> {
        eventually(&format!("a certificate for {name}"), || {
            self.keyring.find(name)
        })
    }

    /// How many orders ended like this.
    pub(crate) fn orders(&self, result: &str) -> usize {
        self.series(&format!(
            "m3o_ingress_acme_orders_total{{result=\"{result}\"}}"
        ))
    }

    fn series(&self, series: &str) -> usize {
        let text = String::from_utf8(self.metrics.to_text()).unwrap();
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap()
    }

    /// A handshake of `peer` for `name`; waits for what becomes of it.
    pub(crate) fn handshake(&self, name: &str, peer: &str) -> Option<Arc<Certificate>> {
        if let Some(found) = self.keyring.find(name) {
            return Some(found);
        }
        let _ended = self.ask(name, peer)?.blocking_recv();
        self.keyring.find(name)
    }

    /// What a handshake of `peer` for `name` waits for, where it has to.
    pub(crate) fn ask(&self, name: &str, peer: &str) -> Option<oneshot::Receiver<()>> {
        let peer: IpAddr = peer.parse().unwrap();
        match self.on_demand.as_ref()?.ask(name, peer) {
            Asked::Unknown => None,
            Asked::Wait(wait) => Some(wait),
        }
    }

    /// How many panics were met.
    pub(crate) fn panics(&self) -> usize {
        self.series("m3o_ingress_panics_total")
    }

    /// Says that it is to stop, and waits for that.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// All that this process logs, of whichever test, in every detail.
pub(crate) fn log() -> Capture {
    static LOG: OnceLock<Capture> = OnceLock::new();
    let start = || {
        let lines = Capture::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone());
        subscriber.init();
        lines
    };
    LOG.get_or_init(start).clone()
}

fn pool(ca: &Path) -> Rc<Pool> {
    let guard = Guard::new(false, Vec::new());
    let connect = Duration::from_secs(5);
    let dialer = Dialer::new(guard, connect, ca.to_str().unwrap(), &[], Handle::current()).unwrap();
    let limits = PoolLimits {
        connections: 4,
        per_backend: 4,
        idle: Duration::from_secs(10),
    };
    Pool::new(dialer, limits, Metrics::new())
}

/// The secret of an external account binding.
pub(crate) fn eab(key: &str) -> Secrets {
    Secrets {
        eab_key: Some(Secret::new(key)),
        tsig_key: None,
    }
}

/// The secret that signs updates.
pub(crate) fn tsig(key: &str) -> Secrets {
    Secrets {
        eab_key: None,
        tsig_key: Some(Secret::new(key)),
    }
}
