//! `m3o-ingress run`: the ingress as its configuration says.

use std::path::Path;

use m3o_ingress::config::{Config, Environment};
use m3o_ingress::ingress::{Ingress, Secrets};
use m3o_ingress::server::shutdown::stop_signal;

use super::{Failure, LogFlags, signals};

/// Runs until a signal ends it.
pub(super) fn run(file: &Path, log: &LogFlags) -> Result<(), Failure> {
    let environment = Environment::of_this_process();
    let mut config = Config::load(file, &environment).map_err(Failure::Configuration)?;
    log.apply(&mut config);
    let secrets = Secrets::from_env(&config, &environment).map_err(Failure::Configuration)?;
    let ingress = Ingress::bind(config, secrets).map_err(Failure::Ingress)?;
    serve(ingress)
}

/// Serves a bound ingress until a signal ends it.
pub(super) fn serve(ingress: Ingress) -> Result<(), Failure> {
    let (stopper, stop) = stop_signal();
    signals::listen(stopper).map_err(Failure::System)?;
    ingress.run(stop).map_err(Failure::Ingress)
}
