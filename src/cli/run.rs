//! `m3o-ingress run`: the ingress as its configuration says.

use std::io;
use std::path::Path;

use m3o_ingress::config::{Config, Environment, Problem};
use m3o_ingress::ingress::{Addresses, Ingress, Secrets, Source, upgrades};
use m3o_ingress::server::shutdown::stop_signal;
use m3o_ingress::telemetry::log::Log;
use m3o_ingress::telemetry::metrics::Metrics;

use super::signals::Signals;
use super::started::{Started, started};
use super::{Failure, LogFlags};

/// Runs until a signal ends it.
pub(super) fn run(file: &Path, log: &LogFlags) -> Result<(), Failure> {
    started(|start| {
        let environment = &start.environment;
        let (again, log, variables) = (file.to_owned(), log.clone(), environment.clone());
        let source = Source::new(file, move || read(&again, &log, &variables));
        let (config, secrets) = source.read().map_err(Failure::Configuration)?;
        // Whoever closed the output does not want to read it; the ingress serves all the same.
        let _ = super::warn(&super::unread(&config, environment));
        serve(config, secrets, Some(source), start, |_| ())
    })
}

/// The configuration and what it names, as they are now.
fn read(
    file: &Path,
    log: &LogFlags,
    environment: &Environment,
) -> Result<(Config, Secrets), Vec<Problem>> {
    let mut config = Config::load(file, environment)?;
    log.apply(&mut config);
    let secrets = Secrets::from_env(&config, environment)?;
    Ok((config, secrets))
}

/// Binds, tells `bound` where, and serves until a signal ends it, reading its configuration again from
/// `source`. The log is whole when it returns.
pub(super) fn serve(
    config: Config,
    secrets: Secrets,
    source: Option<Source>,
    start: Started,
    bound: impl FnOnce(&Addresses),
) -> Result<(), Failure> {
    // Binding may take minutes: a store is looked at as a whole.
    let signals = Signals::keep().map_err(Failure::System)?;
    let style = config.log.style();
    let writer = Log::start(style, Metrics::new(), io::stdout()).map_err(Failure::System)?;
    writer.log().take_events(config.log.level);
    let log = writer.log();
    log.apply(log.open(&config.log).map_err(Failure::Log)?);
    let Started {
        inheritance,
        program,
        ..
    } = start;
    let served = Ingress::bind_with(config, secrets, writer.log(), inheritance);
    let ended = served.map_err(Failure::Ingress).and_then(|ingress| {
        let ingress = match source {
            Some(source) => ingress.reading_from(source),
            None => ingress,
        };
        bound(&ingress.addresses());
        let (stopper, stop) = stop_signal();
        let reloader = ingress.reloader();
        let (upgrader, upgrades) = upgrades(program);
        let listening = signals.listen(stopper, reloader, upgrader, log);
        listening.map_err(Failure::System)?;
        let ingress = ingress.upgraded_by(upgrades);
        ingress.run(stop).map_err(Failure::Ingress)
    });
    writer.finish();
    ended
}
