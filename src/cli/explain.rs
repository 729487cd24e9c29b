//! `m3o-ingress explain`: what becomes of a request, every decision in order.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use m3o_ingress::config::{Config, Environment};
use m3o_ingress::control;
use m3o_ingress::proxy::explain::{self, Explanation, Question};
use serde_json::json;

use super::control::{Control, ControlFlags, JsonFlag};
use super::{Failure, print};

/// The request, and who is asked.
#[derive(Debug, Args)]
pub(super) struct ExplainFlags {
    /// The URL that a client asks for
    url: String,
    /// The Host field, in place of the URL's
    #[arg(long, value_name = "HOST", env = "M3O_INGRESS_EXPLAIN_HOST")]
    host: Option<String>,
    /// The method [default: GET]
    #[arg(
        short = 'X',
        long,
        value_name = "METHOD",
        env = "M3O_INGRESS_EXPLAIN_METHOD"
    )]
    method: Option<String>,
    /// One more field, like 'Accept: text/html'; may be repeated
    #[arg(
        short = 'H',
        long = "header",
        value_name = "FIELD",
        env = "M3O_INGRESS_EXPLAIN_HEADER"
    )]
    headers: Vec<String>,
    /// The address that it comes from [default: that of a stranger]
    #[arg(long, value_name = "ADDRESS", env = "M3O_INGRESS_EXPLAIN_FROM")]
    from: Option<IpAddr>,
    /// Asks no running ingress: the configuration alone [default: one that runs is asked]
    #[arg(long, env = "M3O_INGRESS_OFFLINE", conflicts_with = "running")]
    offline: bool,
    /// Asks a running ingress, and fails where there is none
    #[arg(long, env = "M3O_INGRESS_RUNNING")]
    running: bool,
    #[command(flatten)]
    control: ControlFlags,
    #[command(flatten)]
    json: JsonFlag,
}

/// Prints it.
pub(super) fn explain(flags: ExplainFlags, file: &Path) -> Result<(), Failure> {
    let question = Question {
        url: flags.url,
        host: flags.host,
        method: flags.method,
        headers: flags.headers,
        from: flags.from,
    };
    let asked = match (flags.offline, flags.running || flags.control.is_set()) {
        (true, _) => None,
        (false, true) => Some(Control::find(&flags.control, file)?),
        (false, false) => Control::find(&flags.control, file)
            .ok()
            .filter(Control::listens),
    };
    let (source, explanation) = match &asked {
        Some(control) => (
            format!(
                "asked of the ingress that runs at {}",
                control.path().display()
            ),
            ask(control, &question)?,
        ),
        None => (
            format!("by {} alone: nobody was asked", file.display()),
            offline(&question, file)?,
        ),
    };
    if flags.json.json {
        let mut json = json!(explanation);
        json["source"] = source.into();
        return print(&format!("{json:#}\n"));
    }
    print(&format!("{source}\n{}", explanation.to_text()))
}

fn ask(control: &Control, question: &Question) -> Result<Explanation, Failure> {
    let answer = control.post("/explain", &json!(question))?;
    serde_json::from_value(answer).map_err(|error| control.broken(&error))
}

fn offline(question: &Question, file: &Path) -> Result<Explanation, Failure> {
    let config = Config::load(file, &Environment::of_this_process());
    let config = config.map_err(Failure::Configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::System)?;
    let explained = runtime.block_on(async {
        let sources = control::of_configuration(&config);
        explain::explain(question, &sources).await
    });
    explained.map_err(Failure::Question)
}
