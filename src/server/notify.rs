//! Tells systemd how the service is (`sd_notify(3)`). Where nobody listens, it says nothing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whom to tell. A clone tells the same.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Option<Arc<Service>>);

#[derive(Debug)]
struct Service {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// Between two signs of life that systemd waits for, at most.
    watchdog: Option<Duration>,
    /// Another process speaks for the service now.
    is_over: AtomicBool,
}

/// A variable of systemd that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: `{value}` is not {right}; it is set by systemd: unset it")]
pub struct BadVariable {
    variable: &'static str,
    value: String,
    right: &'static str,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, the last for the process `pid`.
    ///
    /// # Errors
    /// When one of them makes no sense.
    pub fn read<'e>(
        variable: impl Fn(&'static str) -> Option<&'e str>,
        pid: u32,
    ) -> Result<Self, BadVariable> {
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(Self::default());
        };
        let bad = |variable, value: &str, right| BadVariable {
            variable,
            value: value.to_owned(),
            right,
        };
        let right = "the path of a socket";
        let no_socket = |_: io::Error| bad("NOTIFY_SOCKET", path, right);
        let manager = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).map_err(no_socket)?,
            None if path.starts_with('/') => SocketAddr::from_pathname(path).map_err(no_socket)?,
            None => return Err(bad("NOTIFY_SOCKET", path, right)),
        };
        let right = "a number above 0";
        let number = |name| {
            let text = variable(name);
            let number = |text: &str| text.parse().ok().filter(|number| *number > 0_u64);
            let read = |text: &str| number(text).ok_or_else(|| bad(name, text, right));
            text.map(read).transpose()
        };
        let (every, of) = (number("WATCHDOG_USEC")?, number("WATCHDOG_PID")?);
        let is_ours = of.is_none_or(|of| of == u64::from(pid));
        let socket = UnixDatagram::unbound().map_err(no_socket)?;
        socket.set_nonblocking(true).map_err(no_socket)?;
        Ok(Self(Some(Arc::new(Service {
            socket,
            manager,
            watchdog: every.filter(|_| is_ours).map(Duration::from_micros),
            is_over: AtomicBool::new(false),
        }))))
    }

    /// The service is up, and `status` says more. This process speaks for it, also where another one
    /// was started for it.
    pub fn ready(&self, status: &str) {
        let pid = std::process::id();
        self.tell(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}"));
    }

    /// What the service is doing, for whoever asks systemd.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The configuration is read again. [`Notifier::ready`] ends it, whatever came of it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let micros = u64::try_from(now.tv_nsec).unwrap_or_default() / 1000;
        let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let now = now.as_micros();
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"
        ));
    }

    /// The service ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Another process speaks for the service from now on, and this one no more.
    pub fn hand_over(&self, pid: u32) {
        // It has the whole time for its first sign of life.
        self.tell(&format!("MAINPID={pid}\nWATCHDOG=1"));
        if let Some(service) = &self.0 {
            service.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// How often [`Notifier::alive`] is to be called, if at all: twice as often as systemd asks for.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        Some(self.0.as_ref()?.watchdog? / 2)
    }

    /// All is well.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        let Some(service) = &self.0 else { return };
        if service.is_over.load(Ordering::Relaxed) {
            return;
        }
        let sent = service
            .socket
            .send_to_addr(words.as_bytes(), &service.manager);
        if let Err(error) = sent {
            tracing::warn!(%error, "systemd cannot be told how the service is: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Notifier, BadVariable> {
        let variable = |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        Notifier::read(variable, 7)
    }

    #[test]
    fn it_tells_a_socket_by_path_or_by_name_and_stops_when_another_speaks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("m3o-ingress-{}", uuid::Uuid::now_v7());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (variable, manager) in [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path)),
            (format!("@{name}"), UnixDatagram::bind_addr(&by_name)),
        ] {
            let manager = manager.unwrap();
            let notifier = read(&[("NOTIFY_SOCKET", &variable)]).unwrap();
            let next = || {
                let mut buffer = [0; 256];
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            let pid = std::process::id();
            notifier.ready("serving");
            assert_eq!(next(), format!("READY=1\nMAINPID={pid}\nSTATUS=serving"));
            notifier.reloading();
            let text = next();
            let (_, since) = text.split_once("MONOTONIC_USEC=").unwrap();
            assert!(text.starts_with("RELOADING=1\n"), "{text}");
            let since: u64 = since.split('\n').next().unwrap().parse().unwrap();
            assert!(since > 0);
            notifier.hand_over(8);
            assert_eq!(next(), "MAINPID=8\nWATCHDOG=1");
            notifier.stopping();
            manager.set_nonblocking(true).unwrap();
            assert!(manager.recv(&mut [0; 8]).is_err(), "it is silent");
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_asked_if_it_is_ours() {
        let watchdog = |variables: &[(&str, &str)]| {
            let socket = ("NOTIFY_SOCKET", "/run/x");
            let variables: Vec<_> = std::iter::once(socket)
                .chain(variables.iter().copied())
                .collect();
            read(&variables).unwrap().watchdog()
        };
        let every = ("WATCHDOG_USEC", "30000000");
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[every]), Some(Duration::from_secs(15)));
        let (ours, other) = (("WATCHDOG_PID", "7"), ("WATCHDOG_PID", "8"));
        assert_eq!(watchdog(&[every, ours]), Some(Duration::from_secs(15)));
        assert_eq!(watchdog(&[every, other]), None);
    }

    #[test]
    fn variables_that_make_no_sense_are_named() {
        for (variable, value) in [
            ("NOTIFY_SOCKET", "relative"),
            ("WATCHDOG_USEC", "soon"),
            ("WATCHDOG_USEC", "0"),
            ("WATCHDOG_PID", "-1"),
        ] {
            let variables = match variable {
                "NOTIFY_SOCKET" => vec![(variable, value)],
                _ => vec![("NOTIFY_SOCKET", "/run/x"), (variable, value)],
            };
            let text = read(&variables).unwrap_err().to_string();
            assert!(text.contains(variable) && text.contains(value), "{text}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(read(&[("NOTIFY_SOCKET", &long)]).is_err());
        let notifier = read(&[("NOTIFY_SOCKET", "")]).unwrap();
        assert!(notifier.watchdog().is_none());
    }
}
