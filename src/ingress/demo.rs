//! The backends of `dev`, served by this process.

use std::net::SocketAddr;

use super::Error;
use crate::platform::Platform;
use crate::server::listener::{self, Listeners};

/// The backends of `dev`, not yet served.
#[derive(Debug)]
pub(super) struct Demo {
    pub(super) app: Listeners,
    pub(super) function: Listeners,
}

impl Demo {
    /// On ports that are free.
    pub(super) fn bind() -> Result<Self, Error> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            app: listener::bind(loopback, 1)?,
            function: listener::bind(loopback, 1)?,
        })
    }

    /// The store names them wherever they listen this time.
    pub(super) async fn register(&self, platform: &Platform) -> Result<(), Error> {
        let url = |bound: &Listeners| format!("http://{}", bound.address);
        platform
            .register_demo(&url(&self.app), &url(&self.function))
            .await?;
        Ok(())
    }
}
