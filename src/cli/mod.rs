//! The command line: what there is to say, and who does it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use m3o_ingress::config::{Config, Environment};
use m3o_ingress::telemetry::{Format, Level};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as Unknown, StrDeserializer};

mod app;
mod backup;
mod check;
mod control;
mod dev;
mod explain;
mod failure;
mod reload;
mod run;
mod signals;
mod started;
mod status;

use control::{ControlFlags, JsonFlag};
pub(crate) use failure::Failure;

/// The single front door of an app platform: apps, functions, an API, short links and verification
/// links.
#[derive(Debug, Parser)]
#[command(name = "m3o-ingress", version)]
pub(crate) struct Arguments {
    /// The configuration; not for `dev`
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "M3O_INGRESS_CONFIG"
    )]
    #[arg(default_value = "config/ingress.toml")]
    config: PathBuf,
    #[command(flatten)]
    log: LogFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the ingress as its configuration says. The same as no command at all.
    Run,
    /// Runs everything on loopback with no configuration: platform, demo app, demo function.
    Dev(DevFlags),
    /// Validates a configuration and what it names, and prints what it amounts to.
    Check,
    /// Says what becomes of a request: every decision, in order.
    Explain(explain::ExplainFlags),
    /// Makes a running ingress read its configuration again.
    Reload {
        #[command(flatten)]
        control: ControlFlags,
        #[command(flatten)]
        json: JsonFlag,
    },
    /// Says what a running ingress is and does.
    Status {
        #[command(flatten)]
        control: ControlFlags,
        #[command(flatten)]
        json: JsonFlag,
    },
    /// Ends with 0 if a running ingress takes requests, else with 1.
    Health(ControlFlags),
    /// Copies the store of the embedded platform while it is in use.
    Backup(backup::BackupFlags),
    /// The apps of the embedded platform.
    #[command(subcommand)]
    App(app::Verb),
    /// The functions of the embedded platform.
    #[command(subcommand)]
    Fn(app::Verb),
}

#[derive(Debug, Clone, Args)]
struct LogFlags {
    /// How log lines look; `auto` is `human` on a terminal, else `json`
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "M3O_INGRESS_LOG_FORMAT"
    )]
    #[arg(value_parser = one_of::<Format>(&["auto", "human", "json", "combined"]))]
    log_format: Option<Format>,
    /// The least important level that is written
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "M3O_INGRESS_LOG_LEVEL"
    )]
    #[arg(value_parser = one_of::<Level>(&["error", "warn", "info", "debug", "trace"]))]
    log_level: Option<Level>,
}

#[derive(Debug, Args)]
struct DevFlags {
    /// Where plain HTTP is served
    #[arg(long, value_name = "ADDRESS", env = "M3O_INGRESS_DEV_HTTP")]
    #[arg(default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where HTTPS is served, with certificates of a local authority
    #[arg(long, value_name = "ADDRESS", env = "M3O_INGRESS_DEV_HTTPS")]
    #[arg(default_value = "127.0.0.1:8443")]
    https: SocketAddr,
    /// Where health, metrics and the mailbox are served
    #[arg(long, value_name = "ADDRESS", env = "M3O_INGRESS_DEV_ADMIN")]
    #[arg(default_value = "127.0.0.1:8090")]
    admin: SocketAddr,
    /// The folder of the store [default: `$XDG_DATA_HOME` or ~/.local/share, in it m3o-ingress/dev]
    #[arg(long, value_name = "DIR", env = "M3O_INGRESS_DEV_DATA")]
    data: Option<PathBuf>,
    /// Prints where the certificate of the local authority is, made if there is none, and ends
    #[arg(long, env = "M3O_INGRESS_DEV_CA")]
    ca: bool,
}

impl DevFlags {
    /// All addresses that it listens on.
    fn addresses(&self) -> [SocketAddr; 3] {
        [self.http, self.https, self.admin]
    }
}

impl Arguments {
    /// Reads the command line. Help and usage errors end the process here, the latter with 2.
    pub(crate) fn read() -> Self {
        Self::parse_from_line(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn parse_from_line<T: Into<std::ffi::OsString> + Clone>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(line)?;
        let arguments = Self::from_arg_matches(&matches)?;
        let dev = matches.subcommand_matches("dev");
        let source = dev.and_then(|dev| dev.value_source("config"));
        match &arguments.command {
            Some(Command::Dev(_)) if source == Some(ValueSource::CommandLine) => Err(command
                .error(
                    ErrorKind::ArgumentConflict,
                    "`dev` reads no configuration: leave --config out",
                )),
            Some(Command::Dev(flags))
                if !flags.addresses().iter().all(|at| at.ip().is_loopback()) =>
            {
                Err(command.error(
                    ErrorKind::ValueValidation,
                    "dev has a key that everybody knows: --http, --https and --admin take loopback addresses only",
                ))
            }
            _ => Ok(arguments),
        }
    }
}

/// Does what the arguments say.
pub(crate) fn execute(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        config,
        log,
        command,
    } = arguments;
    match command {
        None | Some(Command::Run) => run::run(&config, &log),
        Some(Command::Check) => check::check(&config, &log),
        Some(Command::Dev(flags)) => dev::dev(&flags, &log),
        Some(Command::Explain(flags)) => explain::explain(flags, &config),
        Some(Command::Reload { control, json }) => reload::reload(&control, &json, &config),
        Some(Command::Status { control, json }) => status::status(&control, &json, &config),
        Some(Command::Backup(flags)) => backup::back_up(&flags, &config),
        Some(Command::Health(control)) => status::health(&control, &config),
        Some(Command::App(verb)) => app::execute(&verb, "apps", &config),
        Some(Command::Fn(verb)) => app::execute(&verb, "functions", &config),
    }
}

impl LogFlags {
    /// A flag stands over the environment, the file and the default.
    fn apply(&self, config: &mut Config) {
        let log = &mut config.log;
        log.format = self.log_format.unwrap_or(log.format);
        log.level = self.log_level.unwrap_or(log.level);
    }
}

/// Says beside the output what is odd, and stops nobody.
fn warn(warnings: &[String]) -> io::Result<()> {
    for warning in warnings {
        // In one write: the output may go to the same place.
        io::stderr().write_all(format!("warning: {warning}\n").as_bytes())?;
    }
    Ok(())
}

/// Prints a result.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the output has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::System(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is set in vain.
fn unread(config: &Config, environment: &Environment) -> Vec<String> {
    let ignored = |name| {
        format!(
            "{name}: it is ignored: a key of the file is called `M3O_INGRESS_<SECTION>__<KEY>` here"
        )
    };
    let unread = config.unread(environment);
    unread.into_iter().map(ignored).collect()
}

/// Words that serde knows as a `T`.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words)
        .try_map(|word| T::deserialize(StrDeserializer::<Unknown>::new(&word)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use m3o_ingress::config::FLAGS;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::parse_from_line(line.split(' '))
    }

    #[test]
    fn every_flag_has_an_environment_variable_that_help_shows() {
        let mut command = Arguments::command();
        command.build();
        let mut variables = BTreeSet::new();
        let mut commands = vec![&command];
        while let Some(command) = commands.pop() {
            let below = command.get_subcommands();
            commands.extend(below.filter(|command| command.get_name() != "help"));
            let flags = command.get_arguments().filter(|flag| {
                !flag.is_positional() && !matches!(flag.get_id().as_str(), "help" | "version")
            });
            for flag in flags {
                let variable = flag.get_env().expect("a variable").to_str().unwrap();
                variables.insert(variable.to_owned());
                assert!(!flag.is_hide_env_set(), "{flag}");
            }
        }
        // The configuration lets these be, and wonders about others that begin like them.
        assert_eq!(Vec::from_iter(variables), FLAGS);
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_run_and_the_file_may_stand_on_either_side() {
        let file = |line: &str| parse(line).unwrap().config;
        assert_eq!(file("m3o-ingress"), PathBuf::from("config/ingress.toml"));
        assert_eq!(
            file("m3o-ingress run"),
            PathBuf::from("config/ingress.toml")
        );
        assert_eq!(file("m3o-ingress -c a.toml"), PathBuf::from("a.toml"));
        assert_eq!(file("m3o-ingress -c a.toml run"), PathBuf::from("a.toml"));
        assert_eq!(
            file("m3o-ingress check --config a.toml"),
            PathBuf::from("a.toml")
        );
    }

    #[test]
    fn log_flags_stand_over_the_file_before_and_after_the_command() {
        for line in [
            "m3o-ingress --log-format json dev",
            "m3o-ingress dev --log-format json",
        ] {
            let mut config = Config::default();
            parse(line).unwrap().log.apply(&mut config);
            assert_eq!(config.log.format, Format::Json);
            assert_eq!(config.log.level, Level::Info);
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        let refused = |line: &str, reason: &str| {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(reason), "{error}");
        };
        refused("m3o-ingress --log-level loud", "debug");
        refused("m3o-ingress serve", "serve");
        refused("m3o-ingress dev --https 192.0.2.1:8443", "loopback");
        refused("m3o-ingress -c a.toml dev", "reads no configuration");
        refused("m3o-ingress dev -c a.toml", "reads no configuration");
        refused("m3o-ingress dev --http localhost", "--http");
    }
}
