//! The way of a request that the ingress answers by itself.

use http::{HeaderMap, Method};

use super::walk::{End, Walk, key};
use crate::proxy::error::Error;
use crate::proxy::verify::{Act, Confirm};
use crate::proxy::{index, link};
use crate::upstream::{Hit, ShortLink, Upstream};
use crate::wire::Request;

impl Walk<'_> {
    /// As `Proxy::link` goes. Where a link leads is looked at, which is no visit.
    pub(super) async fn link(
        &mut self,
        asked: &ShortLink,
        request: &Request,
    ) -> Result<End, Error> {
        let path = request.uri().path();
        let visit = match link::hit(request.method(), path)? {
            Hit::Count => "a request would count as a visit",
            Hit::Peek => "no visit",
        };
        let sources = self.sources;
        let question = format!(
            "{} of {}",
            Upstream::call_of(Upstream::RESOLVE_LINK),
            sources.api
        );
        let Some(platform) = sources.platform() else {
            self.step(
                "link",
                &format!("unknown here: would ask {question}; {visit}"),
                &[],
            );
            return Ok(End::Depends(
                "302 to where the link leads, if there is one".to_owned(),
            ));
        };
        self.step("link", &format!("asks {question}; {visit}"), &[]);
        let found = platform.resolve_link(asked, Hit::Peek, None).await;
        let destination = found.map_err(|error| link::unresolved(error, path))?;
        self.step(
            "leads to",
            &format!("{}, its path not shown", destination.host()),
            &[],
        );
        Ok(End::Ours(link::redirect(&destination, HeaderMap::new())))
    }

    /// As `Proxy::verify` goes, but that no token is spent.
    pub(super) fn verify(&mut self, id: Option<&str>, request: &Request) -> Result<End, Error> {
        let user = &self.sources.settings.user;
        let confirm = match user.confirm {
            Confirm::Never => "never",
            Confirm::Always => "always",
            Confirm::Auto => "auto",
        };
        let confirm = [key("user.confirm", format!("\"{confirm}\""))];
        let act = user.act(request)?;
        if matches!(act, Act::Look) {
            self.step("token", "not spent: it is only looked at", &confirm);
            let status = if request.method() == Method::OPTIONS {
                "204"
            } else {
                "200"
            };
            return Ok(End::Depends(format!("{status} without a body")));
        }
        let asked = user.asked(request, id)?;
        let hosts: Vec<&str> = user
            .redirect_hosts
            .iter()
            .map(|host| host.as_str())
            .collect();
        let allowed = [key(
            "user.redirect_hosts",
            format!("[{}]", hosts.join(", ")),
        )];
        self.step("redirects", "to hosts that are allowed", &allowed);
        if !asked.has_token() {
            return Err(Error::NoToken);
        }
        if matches!(act, Act::Ask) {
            self.step("token", "not spent before a button is clicked", &confirm);
            return Ok(End::Depends("200, a page with a button".to_owned()));
        }
        let call = format!(
            "{} of {}",
            Upstream::call_of(Upstream::VERIFY),
            self.sources.api
        );
        self.step("token", &format!("spent by {call}"), &confirm);
        let ends = "302 to where the link says, or a page, by whether the token is good";
        Ok(End::Depends(ends.to_owned()))
    }

    /// As `Proxy::index` goes.
    pub(super) fn index(&mut self, request: &Request) -> Result<End, Error> {
        let enabled = self.sources.settings.index.enabled;
        self.step("list", "of all apps", &[key("index.enabled", enabled)]);
        index::check(&self.sources.settings.index, request.method())?;
        let call = format!(
            "{} of {}",
            Upstream::call_of(Upstream::LIST_APPS),
            self.sources.api
        );
        self.step("upstream", &call, &[]);
        Ok(End::Depends(
            "200, a page with a link to each app".to_owned(),
        ))
    }
}
