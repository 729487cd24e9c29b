//! The configuration of `m3o-ingress dev`: everything on loopback, no file.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use super::{Config, Tls};
use crate::hosts::{HostName, Hosts, PublicScheme};
use crate::{platform, pool, proxy, server, telemetry};

impl Config {
    /// Everything on loopback: the embedded platform with its store in `data`, and names that a
    /// browser resolves to loopback by itself before those of m3o.
    ///
    /// `public` gets the port of `http`; where that is 0, assembly puts in the one really bound.
    #[must_use]
    pub fn dev(http: SocketAddr, https: SocketAddr, admin: SocketAddr, data: &Path) -> Self {
        Self {
            listen: server::Config {
                http: with_ipv6(http),
                https: with_ipv6(https),
                admin: Some(admin),
                control: Some(data.join("control.sock"))
                    .filter(|path| server::local::check_path(path).is_ok()),
                ..server::Config::default()
            },
            platform: Some(platform::Config {
                store: data.join("platform.redb"),
                key_env: "M3O_PLATFORM_KEY".to_owned(),
                public: PublicScheme {
                    secure: false,
                    port: Some(http.port()).filter(|port| *port != 80),
                },
                mail: None,
            }),
            hosts: Hosts {
                app: names(["app.localhost", "m3o.app"]),
                function: names(["fn.localhost", "m3o.sh"]),
                url: names(["localhost", "m3o.one"]),
                user: names(["user.localhost", "user.m3o.com"]),
            },
            backends: pool::Config {
                allow_private: true,
                ..pool::Config::default()
            },
            tls: Tls {
                certs: data.join("certs"),
                authority: Some(data.to_owned()),
                ..Tls::default()
            },
            index: proxy::index::Config { enabled: true },
            log: telemetry::Config {
                format: telemetry::Format::Human,
                ..telemetry::Config::default()
            },
            dev: true,
            ..Self::default()
        }
    }

    /// The names that the local authority of `dev` signs: of all hosts, and of one label before those
    /// of apps and functions, and this machine's own.
    #[must_use]
    pub fn local_names(&self) -> Vec<String> {
        let Hosts {
            app,
            function,
            url,
            user,
        } = &self.hosts;
        let below = app.iter().chain(function).map(|host| format!("*.{host}"));
        let hosts = [app, function, url, user].into_iter().flatten();
        let mut names: Vec<String> = below.chain(hosts.map(ToString::to_string)).collect();
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Programs differ in what they take `localhost` for: `[::1]` too, where the machine has it.
fn with_ipv6(http: SocketAddr) -> Vec<SocketAddr> {
    let mut addresses = vec![http];
    let has_ipv6 = || TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    // Port 0 would become two different ports, of which the links can name one only.
    if http.ip() == Ipv4Addr::LOCALHOST && http.port() != 0 && has_ipv6() {
        addresses.push((Ipv6Addr::LOCALHOST, http.port()).into());
    }
    addresses
}

fn names(names: [&str; 2]) -> Vec<HostName> {
    names
        .into_iter()
        .map(|name| name.parse().expect("these are host names"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn dev_is_a_configuration_that_could_stand_in_a_file() {
        let config = Config::dev(
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.1:8443".parse().unwrap(),
            "127.0.0.1:8090".parse().unwrap(),
            Path::new("data"),
        );
        let text = config.to_toml();
        let mut read = Config::parse("dev", &text, &Environment::default()).unwrap();
        assert!(!read.dev, "no file can ask for it");
        read.dev = true;
        assert_eq!(read.tls.authority, None, "nor for its authority");
        read.tls.authority = config.tls.authority.clone();
        assert_eq!(read, config);
    }

    #[test]
    fn ipv6_is_added_to_the_usual_loopback_only() {
        assert_eq!(with_ipv6("127.0.0.1:0".parse().unwrap()).len(), 1);
        assert_eq!(with_ipv6("127.0.0.2:8080".parse().unwrap()).len(), 1);
        assert_eq!(with_ipv6("[::1]:8080".parse().unwrap()).len(), 1);
    }
}
