//! Why the program ends with something else than 0.

use std::fmt;
use std::path::PathBuf;

use m3o_ingress::causes::with_causes;
use m3o_ingress::config::Problem;
use m3o_ingress::ingress;
use m3o_ingress::proxy::explain::BadQuestion;
use m3o_ingress::telemetry::log::BadFile;
use m3o_ingress::tls::local::BadAuthority;

use super::control::NoAnswer;
use super::started::BadStart;

/// What ended the program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration, or what it names.
    Configuration(Vec<Problem>),
    /// What the environment says of the start of this process is not so.
    Start(BadStart),
    /// There is no folder for `dev` to keep its store in.
    NoDataFolder,
    /// The folder of `dev` cannot be made.
    DataFolder(PathBuf, std::io::Error),
    /// The local authority of `dev` cannot be made or read.
    Authority(BadAuthority),
    /// The file of the access log cannot be opened.
    Log(BadFile),
    /// Signals cannot be heard, or a result not be printed.
    System(std::io::Error),
    /// The ingress could not start, or stopped on its own.
    Ingress(ingress::Error),
    /// A running ingress does not do what it is asked.
    Control(NoAnswer),
    /// It takes no requests.
    NotReady,
    /// Nobody says whether it does: 1, whatever the reason, as Docker keeps all else for itself.
    Health(Box<Self>),
    /// The ingress made a file that is not to be seen from here.
    Elsewhere(PathBuf),
    /// No request that a client would send.
    Question(BadQuestion),
}

impl Failure {
    /// 1: could not start, or failed while running; 2: bad configuration or usage.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::NoDataFolder | Self::Question(_) => 2,
            Self::Start(error) if error.is_configuration() => 2,
            Self::Ingress(ingress::Error::Unmatched(_)) => 2,
            Self::Ingress(ingress::Error::Platform(error)) if error.is_configuration() => 2,
            Self::Ingress(ingress::Error::Certificates(error)) if error.is_configuration() => 2,
            Self::Control(error) => error.exit_code(),
            Self::DataFolder(..)
            | Self::Authority(_)
            | Self::Log(_)
            | Self::System(_)
            | Self::Start(_)
            | Self::Ingress(_)
            | Self::Health(_)
            | Self::Elsewhere(_)
            | Self::NotReady => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                out.write_str(&lines.join("\n"))
            }
            Self::Start(error) => told(out, error),
            Self::NoDataFolder => out.write_str(
                "m3o-ingress: neither XDG_DATA_HOME nor HOME is set: name a folder with --data DIR",
            ),
            Self::DataFolder(folder, error) => {
                let folder = folder.display();
                write!(
                    out,
                    "m3o-ingress: the folder {folder} cannot be made: {error}"
                )
            }
            Self::Authority(error) => told(out, error),
            Self::Log(error) => told(out, error),
            Self::System(error) => told(out, error),
            Self::Ingress(error) => told(out, error),
            Self::Control(error) => error.fmt(out),
            Self::Question(error) => write!(out, "m3o-ingress: {error}"),
            Self::NotReady => out.write_str("m3o-ingress: it takes no requests now"),
            Self::Health(failure) => failure.fmt(out),
            Self::Elsewhere(file) => write!(
                out,
                "m3o-ingress: {}: the ingress has made it, but not where it can be seen from here: a service of systemd has its own /tmp, and may not write everywhere; name a file in a folder that is the same for both, such as /var/lib/m3o-ingress",
                file.display()
            ),
        }
    }
}

fn told(out: &mut fmt::Formatter<'_>, error: &dyn std::error::Error) -> fmt::Result {
    write!(out, "m3o-ingress: {}", with_causes(error))
}
