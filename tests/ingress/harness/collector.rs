//! A collector of OpenTelemetry's: it reads what is exported as the published messages say.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use m3o_ingress::credentials::Secret;
use m3o_ingress::ingress::Secrets;
use m3o_ingress::otlp::Export;
use m3o_ingress::units::Share;

use super::backend::{Answering, TestBackend};
use super::eventually;

/// A server that takes spans, or not.
pub(crate) struct Collector {
    pub(crate) server: TestBackend,
}

impl Collector {
    /// One that takes all.
    pub(crate) fn new() -> Self {
        Self::scripted(|answering| answering.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    }

    /// One that answers each export as `script` does.
    pub(crate) fn scripted(script: impl Fn(&mut Answering) + Send + Sync + 'static) -> Self {
        let server = TestBackend::scripted(move |answering| {
            answering.body();
            script(answering);
        });
        Self { server }
    }

    /// What tells an ingress to export here, and what else the variables say.
    pub(crate) fn told(
        &self,
        variables: &'static [(&'static str, &'static str)],
    ) -> impl FnOnce(&mut Secrets) + use<> {
        let url = self.server.url();
        move |secrets| {
            let value = |name: &str| match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.as_str()),
                _ => variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| *value),
            };
            let headers = value("OTEL_EXPORTER_OTLP_HEADERS").map(Secret::new);
            let share = Share::parse("5%").unwrap();
            secrets.traces = Export::read(value, headers.as_ref(), share).unwrap();
        }
    }

    /// Every export so far.
    pub(crate) fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let mut seen = self.server.seen();
        seen.retain(|seen| !seen.body.is_empty());
        seen.iter()
            .map(|seen| {
                assert_eq!(seen.method(), "POST");
                assert_eq!(seen.target(), "/v1/traces");
                assert_eq!(seen.field("Content-Type"), Some("application/x-protobuf"));
                assert_eq!(seen.field("traceparent"), None);
                ExportTraceServiceRequest::decode(seen.body.as_slice()).unwrap()
            })
            .collect()
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let exports = self.exports().into_iter();
        exports
            .flat_map(|export| export.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }

    /// The spans once there are so many.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Span> {
        eventually("the spans are told", || self.spans().len() >= count);
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// Attributes by their keys; none may be there twice.
#[track_caller]
pub(crate) fn attributes(all: &[KeyValue]) -> BTreeMap<&str, String> {
    let mut by_key = BTreeMap::new();
    for attribute in all {
        let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
        let text = match value {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let twice = by_key.insert(attribute.key.as_str(), text);
        assert_eq!(twice, None, "{}", attribute.key);
    }
    by_key
}
