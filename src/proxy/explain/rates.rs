//! Which rates a request counts for, where it does. Nothing is counted by asking.

use std::net::IpAddr;

use super::walk::{Walk, key};
use crate::credentials::Secret;
use crate::proxy::error::Error;
use crate::rates::{Checked, Rate, Rates, Standing};
use crate::resolve::Workload;

impl<'a> Walk<'a> {
    /// What comes first: the rate of its client, for whom there may be none at all.
    ///
    /// # Errors
    /// When it would be refused.
    pub(super) fn count_peer(&mut self, rates: &'a Rates, client: IpAddr) -> Result<(), Error> {
        let config = rates.config();
        if rates.exempt(client) {
            let nets: Vec<String> = config.exempt.iter().map(ToString::to_string).collect();
            let exempt = key("rates.exempt", format!("[{}]", nets.join(", ")));
            self.step("rates", "none for this client", &[exempt]);
            return Ok(());
        }
        self.rates = Some(rates);
        let told = || rates.foresee_peer(client);
        self.counted("the client", "rates.peer", config.peer, told)
    }

    /// For an app or function, once it is known to exist and to be open.
    ///
    /// # Errors
    /// When it would be refused.
    pub(super) fn count_app(&mut self, workload: &Workload) -> Result<(), Error> {
        let Some(rates) = self.rates else {
            return Ok(());
        };
        let config = rates.config();
        let mut own = config.apps.iter();
        let own = own.find(|(name, _)| name.id() == workload.id);
        let (name, rate) = match own {
            Some((name, rate)) => (format!("rates.apps.{}", name.id()), Some(*rate)),
            None => ("rates.app".to_owned(), config.app),
        };
        let whom = format!("the {}", workload.kind.as_str());
        let told = || rates.foresee_app(workload.kind, &workload.id);
        self.counted(&whom, &name, rate, told)
    }

    /// For a key of the API, once there is one; a form may hold one that nobody sees here.
    ///
    /// # Errors
    /// When it would be refused.
    pub(super) fn count_key(&mut self, found: Option<&Secret>) -> Result<(), Error> {
        let Some(rates) = self.rates else {
            return Ok(());
        };
        let told = || found.map_or(Ok(None), |key| rates.foresee_key(key));
        self.counted("the key", "rates.key", rates.config().key, told)
    }

    /// One rate, and what it says now, where that is known.
    fn counted(
        &mut self,
        whom: &str,
        name: &str,
        rate: Option<Rate>,
        told: impl FnOnce() -> Checked,
    ) -> Result<(), Error> {
        let Some(rate) = rate else { return Ok(()) };
        let told = match self.sources.is_running() {
            true => told(),
            false => Ok(None),
        };
        let now = match &told {
            Ok(None) => "429 beyond it".to_owned(),
            Ok(Some(Standing { left, quota, .. })) => format!("{left} of {quota} left then"),
            Err(_) => "nothing is left".to_owned(),
        };
        let what = format!("counted for {whom}: {now}");
        self.step("rates", &what, &[key(name, rate)]);
        told.map(|_| ()).map_err(Error::Exceeded)
    }
}
