//! The variables by which OpenTelemetry is told where to export, in every program alike.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

use super::Export;
use crate::credentials::Secret;
use crate::pool::{Origin, Reach};
use crate::telemetry::traces::{Parent, Sampler};
use crate::units::Share;

/// The variables with fields that each export carries, a key among them: the first that is set counts.
pub const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// A variable that cannot be heeded.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its name.
    pub variable: &'static str,
    /// Why, and what would be right.
    pub message: String,
}

impl Export {
    /// What the variables say, whose values `value` gives; `None` where nothing is exported. `headers`
    /// is the text of one of [`HEADERS`], and `share` what is recorded where no variable says.
    ///
    /// # Errors
    /// Every variable that cannot be heeded.
    pub fn read<'e>(
        value: impl Fn(&str) -> Option<&'e str>,
        headers: Option<&Secret>,
        share: Share,
    ) -> Result<Option<Self>, Vec<Wrong>> {
        // An empty value is none, as the specification has it.
        let value = |name| value(name).map(str::trim).filter(|text| !text.is_empty());
        let disabled = value("OTEL_SDK_DISABLED");
        let exporter = value("OTEL_TRACES_EXPORTER");
        if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || exporter == Some("none")
        {
            return Ok(None);
        }
        let Some((endpoint_variable, endpoint)) = endpoint(value) else {
            return Ok(None);
        };
        let mut wrong: Vec<Wrong> = unsupported(value).collect();
        let mut note = |variable, message: String| wrong.push(Wrong { variable, message });
        if let Some(other) = exporter.filter(|name| *name != "otlp") {
            let message = format!("`{other}` is no exporter here: it is \"otlp\" or \"none\"");
            note("OTEL_TRACES_EXPORTER", message);
        }
        let parsed = Url::parse(&endpoint).ok();
        let origin = parsed
            .as_ref()
            .and_then(|url| Origin::of(url, Reach::Operator).ok());
        if origin.is_none() {
            let message = "it is no address of a collector: write it like \"http://127.0.0.1:4318\", without a user name or password";
            note(endpoint_variable, message.to_owned());
        }
        let timeout = timeout(value).unwrap_or_else(|(variable, message)| {
            note(variable, message);
            Duration::ZERO
        });
        let resource = value(RESOURCE).map_or(Some(Vec::new()), pairs);
        if resource.is_none() {
            let message = "it is no list of attributes: write it like \"deployment.environment.name=production,key=value\"";
            note(RESOURCE, message.to_owned());
        }
        let sampler = sampler(value, share).unwrap_or_else(|(variable, message)| {
            note(variable, message);
            Sampler {
                share,
                parent: Parent::Heeded,
            }
        });
        let fields = headers.and_then(|headers| fields(headers.expose()));
        let (Some(origin), Some(url), Some(given), true) =
            (origin, parsed, resource, wrong.is_empty())
        else {
            return Err(wrong);
        };
        Ok(Some(Self {
            origin,
            target: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            headers: fields.unwrap_or_default(),
            timeout,
            resource: with_own(given, value("OTEL_SERVICE_NAME")),
            sampler,
        }))
    }
}

/// Whether the text of one of [`HEADERS`] can be sent. It is never shown: it may be a secret.
///
/// # Errors
/// What would be right.
pub fn check_headers(text: &str) -> Result<(), &'static str> {
    match fields(text) {
        Some(_) => Ok(()),
        None => Err("it is no list of fields: write it like \"name=value,other=value\""),
    }
}

const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The variable, and the whole URL of what it names.
fn endpoint<'e>(value: impl Fn(&'static str) -> Option<&'e str>) -> Option<(&'static str, String)> {
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    if let Some(own) = value(OWN) {
        return Some((OWN, own.to_owned()));
    }
    let base = value(BASE)?.trim_end_matches('/');
    Some((BASE, format!("{base}/v1/traces")))
}

/// What is set to a value that would change what is exported, and that we cannot do.
fn unsupported<'e>(value: impl Fn(&'static str) -> Option<&'e str>) -> impl Iterator<Item = Wrong> {
    const AUTHORITIES: &str = "it is not read here: name the authorities to trust in `backends.ca`";
    const CLIENT: &str = "it is not read here: the ingress has no certificate as a client";
    let known = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", PROTOCOL),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/protobuf",
            PROTOCOL,
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none", COMPRESSION),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none", COMPRESSION),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "", AUTHORITIES),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "", AUTHORITIES),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "", CLIENT),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "", CLIENT),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "", CLIENT),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "", CLIENT),
    ];
    known
        .into_iter()
        .filter_map(move |(variable, fine, message)| {
            let set = value(variable)?;
            (set != fine).then(|| Wrong {
                variable,
                message: message.to_owned(),
            })
        })
}

const PROTOCOL: &str =
    "only \"http/protobuf\" is spoken: leave it out, or name it; collectors take it on port 4318";
const COMPRESSION: &str = "nothing is compressed: leave it out, or write \"none\"";

fn timeout<'e>(
    value: impl Fn(&'static str) -> Option<&'e str>,
) -> Result<Duration, (&'static str, String)> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let set = names
        .into_iter()
        .find_map(|name| value(name).map(|text| (name, text)));
    let Some((name, text)) = set else {
        return Ok(Duration::from_secs(10));
    };
    let millis = text.parse().ok().filter(|millis| *millis > 0);
    millis
        .filter(|millis| *millis <= 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| {
            let message = "it is no number of milliseconds: write it like \"10000\"";
            (name, message.to_owned())
        })
}

fn sampler<'e>(
    value: impl Fn(&'static str) -> Option<&'e str>,
    share: Share,
) -> Result<Sampler, (&'static str, String)> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(name) = value(NAME) else {
        return Ok(Sampler {
            share,
            parent: Parent::Heeded,
        });
    };
    let (own, parent) = match name.strip_prefix("parentbased_") {
        Some(own) => (own, Parent::Heeded),
        None => (name, Parent::Ignored),
    };
    let share = match own {
        "always_on" => Share::ALL,
        "always_off" => Share::NONE,
        "traceidratio" => match value(ARGUMENT) {
            None => Share::ALL,
            Some(text) => Share::parse(text).map_err(|message| (ARGUMENT, message))?,
        },
        _ => {
            let message = "it is no sampler here: there are \"always_on\", \"always_off\", \"traceidratio\", and the same after \"parentbased_\"";
            return Err((NAME, message.to_owned()));
        }
    };
    Ok(Sampler { share, parent })
}

/// `key=value,key=value`, percent-encoded (W3C Baggage, without properties).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let decoded = |text: &str| {
                let decoded = percent_decode_str(text.trim()).decode_utf8().ok()?;
                Some(decoded.into_owned())
            };
            let (key, value) = (decoded(key)?, decoded(value)?);
            (!key.is_empty()).then_some((key, value))
        })
        .collect()
}

fn fields(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    pairs(text)?
        .into_iter()
        .map(|(name, value)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        })
        .collect()
}

/// What is said of this process: what is given, and what we know where nothing is.
fn with_own(given: Vec<(String, String)>, name: Option<&str>) -> Vec<(String, String)> {
    let mut attributes = given;
    if let Some(name) = name {
        attributes.retain(|(key, _)| key != "service.name");
        attributes.push(("service.name".to_owned(), name.to_owned()));
    }
    let own = [
        ("service.name", "m3o-ingress".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "service.instance.id",
            uuid::Uuid::new_v7(uuid::Timestamp::now(uuid::NoContext)).to_string(),
        ),
        ("telemetry.sdk.name", "m3o-ingress".to_owned()),
        ("telemetry.sdk.language", "rust".to_owned()),
        (
            "telemetry.sdk.version",
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
    ];
    for (key, value) in own {
        if !attributes.iter().any(|(known, _)| known == key) {
            attributes.push((key.to_owned(), value));
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &'static str)]) -> Result<Option<Export>, Vec<Wrong>> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        let headers = HEADERS.iter().find_map(|name| value(name)).map(Secret::new);
        Export::read(value, headers.as_ref(), Share::NONE)
    }

    fn export(variables: &[(&str, &'static str)]) -> Export {
        let base = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        read(&[variables, &base].concat()).unwrap().unwrap()
    }

    #[test]
    fn nothing_is_exported_unless_there_is_a_collector() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        for variables in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            &[base, ("OTEL_SDK_DISABLED", "TRUE")],
            &[base, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(matches!(read(variables), Ok(None)), "{variables:?}");
        }
    }

    #[test]
    fn the_address_of_a_collector_is_a_base_or_a_whole_url() {
        let own = |url| export(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)]).target;
        assert_eq!(export(&[]).target, "/v1/traces");
        assert_eq!(own("https://a.example/x/"), "/x/");
        assert_eq!(own("https://a.example/x?key=1"), "/x?key=1");
        let base = |url| {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url)];
            read(&variables).unwrap().unwrap().target
        };
        assert_eq!(base("https://a.example/otlp/"), "/otlp/v1/traces");
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318")]).is_err());
    }

    #[test]
    fn what_is_not_done_is_said_all_together() {
        let wrong = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://canary:canary@x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ])
        .unwrap_err();
        let mut names: Vec<_> = wrong.iter().map(|wrong| wrong.variable).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "OTEL_RESOURCE_ATTRIBUTES",
                "OTEL_TRACES_EXPORTER",
                "OTEL_TRACES_SAMPLER",
            ]
        );
        assert!(!format!("{wrong:?}").contains("canary"));
    }

    #[test]
    fn a_sampler_is_named_as_everywhere() {
        let check = |name, argument, share: Share, parent| {
            let mut variables = vec![("OTEL_TRACES_SAMPLER", name)];
            variables.extend([("OTEL_TRACES_SAMPLER_ARG", argument)]);
            let sampler = export(&variables).sampler;
            assert_eq!(sampler, Sampler { share, parent }, "{name}");
        };
        check("", "", Share::NONE, Parent::Heeded);
        check("always_on", "", Share::ALL, Parent::Ignored);
        check("parentbased_always_off", "", Share::NONE, Parent::Heeded);
        check("traceidratio", "", Share::ALL, Parent::Ignored);
        let quarter = Share::parse("0.25").unwrap();
        check("parentbased_traceidratio", "0.25", quarter, Parent::Heeded);
    }

    #[test]
    fn what_is_said_of_the_process_can_be_given() {
        let export = export(&[
            ("OTEL_SERVICE_NAME", "edge"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=x, a=b%2Cc,service.version=9",
            ),
        ]);
        let value = |key: &str| {
            let mut found = export.resource.iter().filter(|(known, _)| known == key);
            let value = found.next().map(|(_, value)| value.clone());
            assert!(found.next().is_none(), "{key}");
            value.unwrap()
        };
        assert_eq!(value("service.name"), "edge");
        assert_eq!(value("service.version"), "9");
        assert_eq!(value("a"), "b,c");
        assert_eq!(value("telemetry.sdk.language"), "rust");
    }

    #[test]
    fn fields_of_an_export_are_hidden() {
        let export = export(&[("OTEL_EXPORTER_OTLP_HEADERS", "x-key=canary%20key, b=canary")]);
        assert_eq!(export.headers.len(), 2);
        assert_eq!(export.headers[0].1, "canary key");
        assert!(!format!("{export:?}").contains("canary"));
        assert!(check_headers("x-key").is_err());
        assert!(check_headers("x key=a").is_err());
    }
}
