//! The fields of a call: one JSON object, read leniently where clients differ.
//!
//! A name may be in camelCase or `snake_case`, a number may be a string (query parameters are), an
//! unknown field is passed over. A field of another type is an error that names it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::error::Error;
use crate::wire::{Body, body};

/// The object that a call came with: its names in their order, each once.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads the body of a call: an object of at most 1 MiB, or nothing.
    pub(super) async fn read(body: Body) -> Result<Self, Error> {
        let bytes = body.collect(MAX_BODY).await.map_err(|error| match error {
            body::Error::TooLarge { .. } => Error::TooLarge,
            body::Error::Stalled | body::Error::Broken(_) | body::Error::Malformed(_) => {
                Error::Body("it was cut off".into())
            }
        })?;
        Self::parse(&bytes)
    }

    /// Takes an object, or nothing at all.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Asked for a map, serde_json would say back what it found instead: perhaps a password.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(match serde_json::from_slice(json) {
                Ok(IgnoredAny) => Error::Body("it is another kind of JSON".into()),
                Err(error) => Error::Body(error.to_string().into()),
            });
        }
        serde_json::from_slice(json).map_err(|error| Error::Body(error.to_string().into()))
    }

    /// A text, if it is there.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        self.value(name)
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                _ => Err(Error::field(name, "must be a string")),
            })
            .transpose()
    }

    /// A text that must be there and not be empty.
    pub(super) fn required(&self, name: &'static str) -> Result<String, Error> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Error::field(name, "is missing"))
    }

    /// A text, if it is there and not empty: forms send every field.
    pub(super) fn filled(&self, name: &'static str) -> Result<Option<String>, Error> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// A whole number, if it is there.
    pub(super) fn integer(&self, name: &'static str) -> Result<Option<i64>, Error> {
        self.value(name)
            .map(|value| match value {
                Value::String(text) => text.trim().parse().ok(),
                value => value.as_i64(),
            })
            .map(|number| number.ok_or_else(|| Error::field(name, "must be a whole number")))
            .transpose()
    }

    /// An object, if it is there; a string may hold it as JSON.
    pub(super) fn object(&self, name: &'static str) -> Result<Option<Map<String, Value>>, Error> {
        self.value(name)
            .map(|value| match value {
                Value::Object(object) => Some(object.clone()),
                Value::String(text) => serde_json::from_str(text).ok(),
                _ => None,
            })
            .map(|object| object.ok_or_else(|| Error::field(name, "must be an object")))
            .transpose()
    }

    /// An object of strings, if it is there.
    pub(super) fn texts(
        &self,
        name: &'static str,
    ) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Some(object) = self.object(name)? else {
            return Ok(None);
        };
        let text = |(key, value)| match value {
            Value::String(value) => Ok((key, value)),
            _ => Err(Error::field(name, "must be an object of strings")),
        };
        object
            .into_iter()
            .map(text)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A list of strings, if it is there. A string is a list of one, and an empty one nothing at all:
    /// forms send every field.
    pub(super) fn list(&self, name: &'static str) -> Result<Option<Vec<String>>, Error> {
        let wrong = || Error::field(name, "must be a list of strings");
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(values)) => {
                values.iter().map(text).collect::<Result<_, _>>().map(Some)
            }
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value) => Ok(Some(vec![text(value)?])),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        let mut fields = self.0.iter().rev();
        let field = fields.find(|(other, _)| folded(other).eq(folded(name)));
        field.map(|(_, value)| value)
    }
}

/// `destinationURL`, `destination_url` and `destinationUrl` are one name.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    let letters = name.bytes().filter(|byte| *byte != b'_');
    letters.map(|byte| byte.to_ascii_lowercase())
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfAnObject;
        impl<'de> Visitor<'de> for OfAnObject {
            type Value = Vec<(String, Value)>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        let mut fields = deserializer.deserialize_map(OfAnObject)?;
        // A name that comes twice has the last of its values.
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        fields.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        fields.retain(|(_, value)| !value.is_null());
        Ok(Self(fields))
    }
}

const MAX_BODY: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_may_be_written_in_either_case() {
        for json in [
            r#"{"destinationURL":"x"}"#,
            r#"{"destination_url":"x"}"#,
            r#"{"destinationUrl":"x","unknown":[1]}"#,
        ] {
            let text = fields(json).required("destinationURL").unwrap();
            assert_eq!(text, "x");
        }
    }

    #[test]
    fn a_name_that_comes_twice_has_one_value() {
        let value = |json: &str| fields(json).text("aB").unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(value(r#"{"aB":"1","aB":"2"}"#), some("2"));
        assert_eq!(value(r#"{"aB":"1","aB":null}"#), None);
        assert_eq!(value(r#"{"aB":null,"aB":"2"}"#), some("2"));
        // Of two ways to write it, that which is last in the order of letters.
        assert_eq!(value(r#"{"aB":"1","a_b":"2"}"#), some("2"));
        assert_eq!(value(r#"{"a_b":"2","aB":"1"}"#), some("2"));
        assert_eq!(value(r#"{"a_b":null,"aB":"1"}"#), some("1"));
    }

    #[test]
    fn a_number_may_be_a_string() {
        let number = |json: &str| fields(json).integer("port");
        assert_eq!(number(r#"{"port":80}"#).unwrap(), Some(80));
        assert_eq!(number(r#"{"port":"80"}"#).unwrap(), Some(80));
        assert_eq!(number(r#"{"port":null}"#).unwrap(), None);
        for json in [r#"{"port":"x"}"#, r#"{"port":1.5}"#, r#"{"port":[]}"#] {
            let error = number(json).unwrap_err().to_string();
            assert_eq!(error, "port: must be a whole number");
        }
    }

    #[test]
    fn a_list_may_be_one_string_and_is_there_also_when_it_is_empty() {
        let list = |json: &str| fields(json).list("custom_domains");
        let some = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(
            list(r#"{"customDomains":["a","b"]}"#).unwrap(),
            some(&["a", "b"])
        );
        assert_eq!(list(r#"{"custom_domains":"a"}"#).unwrap(), some(&["a"]));
        assert_eq!(list(r#"{"custom_domains":[]}"#).unwrap(), some(&[]));
        assert_eq!(list(r#"{"custom_domains":""}"#).unwrap(), None);
        assert_eq!(list("{}").unwrap(), None);
        for json in [r#"{"custom_domains":[1]}"#, r#"{"custom_domains":{}}"#] {
            let error = list(json).unwrap_err().to_string();
            assert_eq!(error, "custom_domains: must be a list of strings");
        }
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        let error = |outcome: Result<(), Error>| outcome.unwrap_err().to_string();
        let wrong = fields(r#"{"name":5,"env_vars":{"A":1},"request":[]}"#);
        assert_eq!(
            error(wrong.text("name").map(drop)),
            "name: must be a string"
        );
        assert_eq!(
            error(wrong.texts("env_vars").map(drop)),
            "env_vars: must be an object of strings"
        );
        assert_eq!(
            error(wrong.object("request").map(drop)),
            "request: must be an object"
        );
        assert_eq!(error(wrong.required("id").map(drop)), "id: is missing");
    }

    #[test]
    fn the_body_is_an_object_or_nothing() {
        assert!(Fields::parse(b"").is_ok());
        assert!(Fields::parse(b" \n").is_ok());
        for json in ["[]", "5", "{", "null", "{} {}", "name=Alice"] {
            let error = Fields::parse(json.as_bytes()).err().unwrap();
            assert!(matches!(error, Error::Body(_)), "{json}");
        }
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        let body = Body::from(vec![b' '; (1 << 20) + 1]);
        assert!(matches!(Fields::read(body).await, Err(Error::TooLarge)));
    }
}
