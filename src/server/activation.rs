//! Sockets that systemd bound (`sd_listen_fds(3)`): `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

use super::inherited::{Inherited, Kind, Passed};

/// What the environment says of sockets that were passed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// A name for each, which may be empty.
    names: Vec<String>,
}

/// Sockets that were announced and cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BadActivation {
    /// A variable that makes no sense.
    #[error(
        "{variable}: `{value}` is not {right}; it is set by systemd, for socket activation: unset it"
    )]
    Variable {
        /// Which.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it would be.
        right: &'static str,
    },
    /// Another number of names than of sockets.
    #[error(
        "LISTEN_FDNAMES has {names} names for {sockets} sockets: it is set by systemd, with one for each"
    )]
    Names {
        /// So many names.
        names: usize,
        /// So many sockets.
        sockets: usize,
    },
    /// A descriptor is no socket that listens.
    #[error("the descriptor {descriptor} that systemd passed{} cannot be used: {source}; a .socket unit for this program has ListenStream= with a port", name_of(.name))]
    Descriptor {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

fn name_of(name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!(", named `{name}`,"),
    }
}

/// The first of them (`sd_listen_fds(3)`).
const FIRST: usize = 3;

/// More than anybody listens on.
const MOST: usize = 256;

impl Announced {
    /// Reads the variables. Those for another process than `pid` say nothing.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn read<'e>(
        variable: impl Fn(&'static str) -> Option<&'e str>,
        pid: u32,
    ) -> Result<Self, BadActivation> {
        let bad = |variable, value: &str, right| BadActivation::Variable {
            variable,
            value: value.to_owned(),
            right,
        };
        let (Some(sockets), Some(for_pid)) = (variable("LISTEN_FDS"), variable("LISTEN_PID"))
        else {
            return Ok(Self::default());
        };
        let right = "the number of a process";
        let for_pid: u32 = for_pid
            .parse()
            .map_err(|_| bad("LISTEN_PID", for_pid, right))?;
        if for_pid != pid {
            return Ok(Self::default());
        }
        let right = "a number of sockets, at most 256";
        let count: usize = sockets
            .parse()
            .ok()
            .filter(|count| *count <= MOST)
            .ok_or_else(|| bad("LISTEN_FDS", sockets, right))?;
        let names: Vec<String> = match variable("LISTEN_FDNAMES").filter(|names| !names.is_empty())
        {
            Some(names) => names.split(':').map(str::to_owned).collect(),
            None => vec![String::new(); count],
        };
        if names.len() != count {
            return Err(BadActivation::Names {
                names: names.len(),
                sockets: count,
            });
        }
        Ok(Self { names })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes them. Only before anything else in this process opens a file, and while it has one thread:
    /// the numbers are all that tells them apart.
    ///
    /// # Errors
    /// When one of them is no socket that listens.
    pub fn take(self) -> Result<Inherited, BadActivation> {
        let mut descriptors = match self.is_empty() {
            true => ListenFd::empty(),
            false => ListenFd::from_env(),
        };
        let mut all: Vec<Passed> = Vec::new();
        for (index, name) in self.names.into_iter().enumerate() {
            let taken = listener(&mut descriptors, index);
            let (socket, bound) = taken.map_err(|source| BadActivation::Descriptor {
                descriptor: FIRST + index,
                name: name.clone(),
                source,
            })?;
            match all.iter_mut().find(|passed| passed.bound == bound) {
                Some(passed) => passed.sockets.push(socket),
                None => all.push(Passed {
                    kind: Kind::named(&name),
                    configured: None,
                    bound,
                    is_shared: true,
                    name: Some(name).filter(|name| !name.is_empty()),
                    sockets: vec![socket],
                }),
            }
        }
        Ok(Inherited(all))
    }
}

fn listener(descriptors: &mut ListenFd, index: usize) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = descriptors.take_tcp_listener(index)?;
    let socket = socket.ok_or_else(|| io::Error::other("it is not there"))?;
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 4711;

    fn read(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let variable = |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        let announced = Announced::read(variable, PID);
        announced
            .map(|announced| announced.names)
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_says(variables: &[(&str, &str)], words: &[&str]) {
        let text = read(variables).unwrap_err();
        for word in words {
            assert!(text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn names_are_those_of_systemd_or_none() {
        let two = [("LISTEN_PID", "4711"), ("LISTEN_FDS", "2")];
        assert_eq!(read(&two).unwrap(), ["", ""]);
        let named = [two[0], two[1], ("LISTEN_FDNAMES", "http:admin")];
        assert_eq!(read(&named).unwrap(), ["http", "admin"]);
        let none = [("LISTEN_PID", "4711"), ("LISTEN_FDS", "0")];
        assert!(read(&none).unwrap().is_empty());
    }

    #[test]
    fn sockets_of_another_process_are_not_ours() {
        assert!(read(&[]).unwrap().is_empty());
        assert!(read(&[("LISTEN_FDS", "2")]).unwrap().is_empty());
        let other = [("LISTEN_PID", "4712"), ("LISTEN_FDS", "many")];
        assert!(read(&other).unwrap().is_empty());
    }

    #[test]
    fn variables_that_make_no_sense_are_named() {
        for count in ["", "many", "-1", "257", "99999999999999999999", "1 "] {
            let variables = [("LISTEN_PID", "4711"), ("LISTEN_FDS", count)];
            check_says(&variables, &["LISTEN_FDS", count, "at most 256"]);
        }
        for pid in ["", "me", "-1", "99999999999999999999"] {
            let variables = [("LISTEN_PID", pid), ("LISTEN_FDS", "1")];
            check_says(&variables, &["LISTEN_PID", "process"]);
        }
        let names = [
            ("LISTEN_PID", "4711"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_FDNAMES", "http:admin"),
        ];
        check_says(&names, &["LISTEN_FDNAMES", "2 names for 1 sockets"]);
    }
}
