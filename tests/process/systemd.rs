//! systemd: sockets that it passes, what it is told, and the units that are shipped.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::caller::{connect, get, read, request};
use crate::process::{CAP, Process, run_command};
use crate::tools::folder;
use crate::upgrade::service::{Binary, Service};

/// Binds so many sockets, tells where, waits for a line, and becomes the ingress as systemd starts it.
const LAUNCHER: &str = r#"
import fcntl, os, socket, sys
count, names, announced, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
sockets = []
for _ in range(count):
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(64)
    sockets.append(bound)
print(*["%s:%d" % bound.getsockname() for bound in sockets], file=sys.stderr, flush=True)
sys.stdin.readline()
high = [fcntl.fcntl(bound, fcntl.F_DUPFD_CLOEXEC, 100) for bound in sockets]
for index, copy in enumerate(high):
    os.dup2(copy, 3 + index, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=announced or str(count), LISTEN_FDNAMES=names)
os.execv(arguments[0], arguments)
"#;

/// The ingress with sockets that were bound before it is started.
struct Launched {
    process: std::process::Child,
    bound: Vec<SocketAddr>,
}

impl Launched {
    fn new(count: usize, names: &str, announced: &str, folder: &Path, config: &str) -> Self {
        let file = folder.join("ingress.toml");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new("python3")
            .args(["-c", LAUNCHER, &count.to_string(), names, announced])
            .args([env!("CARGO_BIN_EXE_m3o-ingress"), "run", "--config"])
            .arg(&file)
            .env("M3O_PLATFORM_KEY", "dev")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let errors = process.stderr.as_mut().unwrap();
        BufReader::with_capacity(1, errors)
            .read_line(&mut line)
            .unwrap();
        let bound = line.split_whitespace().map(|at| at.parse().unwrap());
        Self {
            bound: bound.collect(),
            process,
        }
    }

    /// Lets it begin.
    fn go(&mut self) {
        self.process.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Lets it begin, and end with 2; what it says.
    #[track_caller]
    fn refused(mut self) -> String {
        self.go();
        let output = self.process.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    }
}

const STORE: &str = "platform.store = 'store'";

#[test]
fn whoever_waits_at_a_socket_of_systemd_is_served_once_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "listen = {{ http = '0.0.0.0:80', admin = '127.0.0.1:8090', workers = 2 }}\n{STORE}"
    );
    let mut launched = Launched::new(2, "http:admin", "", folder.path(), &config);
    let (http, admin) = (launched.bound[0], launched.bound[1]);
    let target = "/api/helloworld/call?api_key=dev&name=A";
    let ask = || {
        let mut socket = connect(http).unwrap();
        let text = request("GET", "localhost", target, &[], "");
        socket.write_all(text.as_bytes()).unwrap();
        socket
    };
    let waiting: Vec<TcpStream> = (0..20).map(|_| ask()).collect();
    launched.go();
    for socket in waiting {
        assert_eq!(read(socket).unwrap().status, 200);
    }
    assert_eq!(get(admin, "localhost", "/readyz").status, 200);
    for _ in 0..20 {
        assert_eq!(get(http, "localhost", target).status, 200);
    }
    let pid = rustix::process::Pid::from_child(&launched.process);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(launched.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_socket_that_nothing_is_configured_for_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("listen.http = '127.0.0.1:0'\n{STORE}");
    let launched = Launched::new(2, "http:front", "", folder.path(), &config);
    let surplus = launched.bound[1].to_string();
    let said = launched.refused();
    for word in [&*surplus, "`front`", "[listen]", "FileDescriptorName="] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let launched = Launched::new(1, "http:front", "", folder.path(), &config);
    assert!(launched.refused().contains("LISTEN_FDNAMES"));
    let launched = Launched::new(1, "http", "some", folder.path(), &config);
    let said = launched.refused();
    assert!(
        said.contains("LISTEN_FDS") && said.contains("`some`"),
        "{said}"
    );
    let launched = Launched::new(1, "http:admin", "2", folder.path(), &config);
    assert!(launched.refused().contains("descriptor 4"));
}

#[test]
fn a_variable_that_only_an_upgrade_sets_is_an_error_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("listen.http = '127.0.0.1:0'\n{STORE}");
    let own = std::process::id().to_string();
    for (variable, value, words) in [
        ("M3O_UPGRADE_FROM", "me", "no number of a process"),
        ("M3O_UPGRADE_FROM", "1", "not the process that started"),
        ("M3O_UPGRADE_FROM", &*own, "no socket of an ingress"),
        ("NOTIFY_SOCKET", "here", "the path of a socket"),
    ] {
        let mut command = run_command(folder.path(), &config);
        command.env("M3O_PLATFORM_KEY", "dev").env(variable, value);
        let ended = Process::spawn(&mut command).end();
        assert_eq!(ended.status.code(), Some(2), "{}", ended.text);
        assert!(ended.text.contains(variable), "{}", ended.text);
        assert!(ended.text.contains(words), "{}", ended.text);
    }
}

#[test]
fn systemd_hears_how_the_service_is_and_which_process_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(CAP)).unwrap();
    let config = format!("listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}\n{STORE}");
    let mut command = run_command(folder.path(), &config);
    command
        .env("M3O_PLATFORM_KEY", "dev")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "4000000");
    let mut service = Service::start(&mut command);
    let until = |end: &str| {
        let mut heard = Vec::new();
        loop {
            let mut buffer = [0; 512];
            let length = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let is_end = text.contains(end);
            heard.push(text);
            if is_end {
                return heard;
            }
        }
    };
    let first = service.pid();
    let heard = until("READY=1");
    let ready = heard.last().unwrap();
    assert!(ready.contains(&format!("MAINPID={first}\n")), "{ready}");
    assert!(ready.contains("STATUS=serving"), "{ready}");
    until("WATCHDOG=1");
    until("WATCHDOG=1");
    service.signal(Signal::HUP);
    until("RELOADING=1\nMONOTONIC_USEC=");
    let heard = until("READY=1");
    let ready = heard.last().unwrap();
    assert!(ready.contains("STATUS=serving"), "{ready}");
    service.upgrade();
    service.the_old_ones_end();
    let second = service.pid();
    let mut heard = until(&format!("READY=1\nMAINPID={second}\n"));
    heard.extend(until("WATCHDOG=1"));
    // All that the old one ever said is here by now.
    manager.set_nonblocking(true).unwrap();
    let rest = std::iter::from_fn(|| {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    heard.extend(rest);
    let main = format!("MAINPID={second}\nWATCHDOG=1");
    assert!(heard.contains(&main), "the old one says so too: {heard:?}");
    let stopping = |text: &String| text.contains("STOPPING=1");
    assert!(!heard.iter().any(stopping), "{heard:?}");
    manager.set_nonblocking(false).unwrap();
    service.stop();
    until("STOPPING=1");
}

#[test]
fn systemd_hears_that_the_process_before_goes_on_where_an_upgrade_fails() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(CAP)).unwrap();
    let config = format!("listen = {{ http = '127.0.0.1:0', admin = '127.0.0.1:0' }}\n{STORE}");
    std::fs::write(folder.join("ingress.toml"), config).unwrap();
    let binary = Binary::link(folder);
    let mut command = binary.run(&folder.join("ingress.toml"));
    command
        .env("M3O_PLATFORM_KEY", "dev")
        .env("NOTIFY_SOCKET", &path);
    let service = Service::start(&mut command);
    binary.leads_to(Path::new("/bin/false"));
    service.fails_to_upgrade();
    let ready = format!("READY=1\nMAINPID={}\n", service.pid());
    let goes_on = format!("{ready}STATUS=serving; the last upgrade has failed");
    let mut buffer = [0; 512];
    loop {
        let length = manager.recv(&mut buffer).unwrap();
        if buffer[..length] == *goes_on.as_bytes() {
            break;
        }
    }
    service.stop();
}

#[test]
fn the_units_are_what_systemd_takes_and_leave_little_exposed() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["m3o-ingress.service", "m3o-ingress.socket"] {
        let unit = std::fs::read_to_string(folder("deploy/systemd").join(name)).unwrap();
        let here = env!("CARGO_BIN_EXE_m3o-ingress");
        let unit = unit.replace("/usr/bin/m3o-ingress", here);
        std::fs::write(scratch.path().join(name), unit).unwrap();
    }
    let units = ["m3o-ingress.service", "m3o-ingress.socket"].map(|name| scratch.path().join(name));
    let analyze = |arguments: &[&str], units: &[std::path::PathBuf]| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .args(units)
            .output()
            .unwrap_or_else(|error| panic!("{error}; run tests/setup"));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{arguments:?}\n{said}");
        said
    };
    let said = analyze(&["verify"], &units);
    // Before 253 there is no such type, and what is left is `simple`.
    let mut lines = said.lines().filter(|line| line.contains("m3o-ingress"));
    assert!(lines.all(|line| line.contains("notify-reload")), "{said}");
    // Of 100: what is left is that it serves the net.
    analyze(
        &["security", "--offline=true", "--threshold=20"],
        &units[..1],
    );
}
