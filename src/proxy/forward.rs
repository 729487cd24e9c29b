//! Sends a request to its backend and gives the response, both streamed.

use std::pin::pin;

use http::{StatusCode, Uri, Version, header};

use super::error::{Error, of_backend};
use super::headers;
use super::upgrade::Upgrade;
use super::{Client, Proxy};
use crate::resolve::Backend;
use crate::telemetry::client::Side;
use crate::telemetry::exchange::Exchange;
use crate::telemetry::load::InFlight;
use crate::wire::{Body, Request, Response};

impl Proxy {
    /// Forwards `request` to `backend` as `client` sent it.
    ///
    /// # Errors
    /// When there is no response to pass on.
    pub(super) async fn forward(
        &self,
        backend: &Backend,
        request: &mut Request,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        if headers::loops(request.headers()) {
            return Err(Error::Loop);
        }
        let upgrade = Upgrade::asked_by(request);
        let target = backend
            .target(request.uri())
            .map_err(|_| Error::UriTooLong)?;
        client.prepare(request);
        let headers = request.headers_mut();
        headers.insert(header::HOST, backend.authority().clone());
        if let Some(upgrade) = &upgrade {
            upgrade.write_to(headers);
        }
        *request.uri_mut() = Uri::from(target);

        let timeouts = &self.settings.timeouts;
        let (timer, limit) = (&client.peer.timer, timeouts.response);
        let (origin, address) = (backend.origin(), backend.authority());
        let asking = exchange.asks(Side::Backend, address, origin.port(), request);
        let sent = {
            let sending = pin!(self.pool.send_while_moving(origin, request, timer, limit));
            sending.await
        };
        let mut response = match sent {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(of_backend(error)),
            None => return Err(Error::BackendTimedOut),
        };
        asking.answered(response.status());

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade
                .filter(|upgrade| upgrade.is_granted_by(&response))
                .ok_or(Error::BackendUpgrade)?;
            headers::remove_hop_by_hop(response.headers_mut());
            upgrade.write_to(response.headers_mut());
            // A tunnel has a place until it ends, and none among the requests.
            if let Body::Tunnel(tunnel) = response.body_mut() {
                let place = exchange.in_flight.take().map(InFlight::into_tunnel);
                tunnel.hold(timeouts.tunnel, place);
                if upgrade.is_websocket() {
                    tunnel.carry_websocket();
                }
            }
            return Ok(response);
        }
        headers::remove_hop_by_hop(response.headers_mut());
        headers::map_to_public(
            response.headers_mut(),
            backend,
            client.public.0,
            &client.public.1,
        );
        self.pass_back(&mut response, client);
        Ok(response)
    }

    /// What every response that is passed back has in common.
    pub(super) fn pass_back(&self, response: &mut Response, client: &Client<'_>) {
        *response.version_mut() = Version::HTTP_11;
        let limit = self.settings.timeouts.response;
        response.body_mut().watch(&client.peer.timer, limit);
    }
}

impl Client<'_> {
    /// Makes a client's request one of ours, whoever it goes to.
    pub(super) fn prepare(&self, request: &mut Request) {
        let version = request.version();
        let headers = request.headers_mut();
        headers::prepare(headers, version, self.peer, self.trust, &self.authority);
        headers.insert(headers::X_REQUEST_ID, self.id.clone());
        *request.version_mut() = Version::HTTP_11;
    }
}
