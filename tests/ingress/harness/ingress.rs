//! A whole ingress on a thread of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use m3o_ingress::config::Config;
use m3o_ingress::credentials::Secret;
use m3o_ingress::ingress::{Error, Ingress, Refused, Reloader, Report, Secrets, Source};
use m3o_ingress::server::shutdown::{Stage, Stop, Stopper, stop_signal};
use m3o_ingress::telemetry::Format;
use m3o_ingress::telemetry::log::{Capture, Log, Style, Writer};
use m3o_ingress::telemetry::metrics::Metrics;
use m3o_ingress::{platform, upstream};

use super::PATIENCE;
use super::api::{OWN_TOKEN, TestApi};
use super::caller::Caller;
use super::message::Reply;

/// An ingress that serves until it is dropped.
pub(crate) struct TestIngress {
    pub(crate) address: SocketAddr,
    /// All public ones, of which that is the first.
    pub(crate) public: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    https: Option<SocketAddr>,
    /// What it reads when it reads its configuration again.
    file: Arc<Mutex<(Config, Secrets)>>,
    reloader: Reloader,
    stopper: Stopper,
    running: Option<JoinHandle<Result<(), Error>>>,
    lines: Capture,
    writer: Option<Writer>,
}

/// The only key of the embedded platform.
pub(crate) const KEY: &str = "dev";

impl TestIngress {
    /// In front of the embedded platform.
    pub(crate) fn embedded() -> Self {
        Self::embedded_with(|_| {})
    }

    pub(crate) fn embedded_with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start(|config| {
            config.platform = Some(platform::Config {
                store: "memory".into(),
                key_env: "UNUSED".to_owned(),
                public: Default::default(),
                mail: None,
            });
            adjust(config);
        })
    }

    /// In front of a remote API.
    pub(crate) fn before(api: &TestApi) -> Self {
        Self::before_with(api, |_| {})
    }

    pub(crate) fn before_with(api: &TestApi, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::before_address(&format!("http://{}", api.address()), adjust)
    }

    pub(crate) fn before_address(address: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let address = upstream::ApiAddress::try_from(address.to_owned()).unwrap();
        Self::start(|config| {
            config.api = Some(upstream::Config {
                address,
                token_env: "UNUSED".to_owned(),
            });
            adjust(config);
        })
    }

    fn start(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(|_| {}, adjust)
    }

    /// In front of a remote API, with what the environment would say.
    pub(crate) fn before_told(
        api: &TestApi,
        tell: impl FnOnce(&mut Secrets),
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let address = format!("http://{}", api.address());
        Self::start_with(tell, |config| {
            config.api = Some(upstream::Config {
                address: upstream::ApiAddress::try_from(address).unwrap(),
                token_env: "UNUSED".to_owned(),
            });
            adjust(config);
        })
    }

    fn start_with(tell: impl FnOnce(&mut Secrets), adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.listen.http = vec![loopback()];
        config.listen.admin = Some(loopback());
        // One, so that which pool a connection's requests share is no matter of luck.
        config.listen.workers = 1;
        config.backends.allow_private = true;
        config.timeouts.drain = Duration::from_secs(5);
        config.log.format = Format::Json;
        adjust(&mut config);

        let mut secrets = Secrets {
            api_token: Some(Secret::new(OWN_TOKEN)),
            platform_key: Some(Secret::new(KEY)),
            smtp_url: None,
            ..Secrets::default()
        };
        tell(&mut secrets);
        let lines = Capture::default();
        let writer = Log::start(Style::Json, Metrics::new(), lines.clone()).unwrap();
        let log = writer.log();
        log.apply(log.open(&config.log).unwrap());
        let file = Arc::new(Mutex::new((config.clone(), secrets.clone())));
        let read = Arc::clone(&file);
        let source = Source::new("nowhere".as_ref(), move || Ok(read.lock().unwrap().clone()));
        let ingress = Ingress::bind(config, secrets, writer.log()).unwrap();
        let ingress = ingress.reading_from(source);
        let reloader = ingress.reloader();
        let addresses = ingress.addresses();
        let (stopper, stop) = stop_signal();
        let running = std::thread::spawn(move || ingress.run(Stop::clone(&stop)));
        Self {
            address: addresses.http[0],
            public: addresses.http,
            admin: addresses.admin.unwrap(),
            https: addresses.https.first().copied(),
            file,
            reloader,
            stopper,
            running: Some(running),
            lines,
            writer: Some(writer),
        }
    }

    /// Where it serves HTTPS, for which a test adjusts `listen.https` and `tls.certs`.
    #[track_caller]
    pub(crate) fn secure(&self) -> SocketAddr {
        self.https.unwrap()
    }

    /// A new connection.
    #[track_caller]
    pub(crate) fn caller(&self) -> Caller {
        Caller::connect(self.address)
    }

    /// One GET over a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, host: &str, target: &str) -> Reply {
        self.caller().get(host, target)
    }

    /// One call of the API with the platform's key.
    #[track_caller]
    pub(crate) fn post_json(&self, endpoint: &str, json: &str) -> Reply {
        let fields = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
        let target = format!("/v1/{endpoint}");
        self.caller()
            .post("localhost", &target, &fields, json.as_bytes())
    }

    /// Runs an app on the embedded platform.
    #[track_caller]
    pub(crate) fn run_app(&self, name: &str, backend: &str) {
        let json = serde_json::json!({ "name": name, "backend": backend }).to_string();
        self.post_json("app/Run", &json).expect(200);
    }

    /// The value of a series, named with its labels as it is exposed.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("{series} is not in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Every series, as it is exposed.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let mut admin = Caller::connect(self.admin);
        admin.get("localhost", "/metrics").expect(200).text()
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.lines.text()
    }

    /// The access log so far, a value a line.
    pub(crate) fn access_lines(&self) -> Vec<serde_json::Value> {
        let text = self.log();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What writes its log.
    pub(crate) fn log_writer(&self) -> Log {
        self.writer.as_ref().unwrap().log()
    }

    /// Changes what it reads, and has it read that.
    pub(crate) fn reload(&self, adjust: impl FnOnce(&mut Config)) -> Result<Report, Refused> {
        self.reload_with(|config, _| adjust(config))
    }

    pub(crate) fn reload_with(
        &self,
        adjust: impl FnOnce(&mut Config, &mut Secrets),
    ) -> Result<Report, Refused> {
        let mut file = self.file.lock().unwrap();
        let (config, secrets) = &mut *file;
        adjust(config, secrets);
        drop(file);
        self.read_again()
    }

    /// Has it read what it reads.
    pub(crate) fn read_again(&self) -> Result<Report, Refused> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let reloading = async { tokio::time::timeout(PATIENCE, self.reloader.reload()).await };
        runtime.block_on(reloading).unwrap()
    }

    /// Moves the shutdown on.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stopper.advance(stage);
    }

    /// Whether it has stopped serving and let go of everything.
    pub(crate) fn has_ended(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end, and gives how it ended.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        self.running.take().unwrap().join().unwrap()
    }
}

impl Drop for TestIngress {
    fn drop(&mut self) {
        self.stopper.advance(Stage::Stopping);
        if let Some(running) = self.running.take() {
            let ended = running.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
