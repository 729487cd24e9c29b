//! Queries and forms on their way to JSON.

use bytes::Bytes;
use futures_util::FutureExt;
use m3o_ingress::proxy::parameters::{Parameters, without_key};
use serde_json::Value;

/// The input is a query, a form, and the body of a multipart form after its content type.
pub fn check(input: &[u8]) {
    let mut parameters = Parameters::parse(input);
    let named = |name: &str| {
        let same = form_urlencoded::parse(input).filter(|(other, _)| other == name);
        same.map(|(_, value)| value.into_owned())
            .collect::<Vec<_>>()
    };
    let key = named("api_key").into_iter().find(|key| !key.is_empty());
    assert_eq!(parameters.take_key().is_some(), key.is_some());
    let object = object(&parameters);
    for (name, value) in &object {
        let values = named(name);
        let expected = match values.as_slice() {
            [one] => Value::from(one.as_str()),
            many => Value::from(many),
        };
        assert_eq!(*value, expected, "{name:?}");
    }
    for (name, _) in form_urlencoded::parse(input) {
        assert_eq!(object.contains_key(&*name), name != "api_key", "{name:?}");
    }

    if let Ok(query) = std::str::from_utf8(input) {
        let (rest, had_key) = without_key(query);
        assert_eq!(had_key, !named("api_key").is_empty());
        assert_eq!(without_key(&rest), (rest.clone(), false));
        assert_eq!(self::object(&Parameters::parse(rest.as_bytes())), object);
        if !had_key {
            assert_eq!(rest, query);
        }
    }
    multipart(input);
}

fn multipart(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let Some(Ok(content_type)) = parts.next().map(std::str::from_utf8) else {
        return;
    };
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let read = Parameters::parse_multipart(content_type, body).now_or_never();
    if let Ok(parameters) = read.expect("a body that is there is read at once") {
        object(&parameters);
    }
}

/// The JSON of `parameters`: strings, arrays of several strings, and no key.
fn object(parameters: &Parameters) -> serde_json::Map<String, Value> {
    let json = serde_json::from_slice(&parameters.to_json());
    let Ok(Value::Object(object)) = json else {
        panic!("it is no object: {json:?}");
    };
    assert!(!object.contains_key("api_key"));
    for value in object.values() {
        let several = |values: &Vec<Value>| values.len() > 1 && values.iter().all(Value::is_string);
        assert!(
            value.is_string() || value.as_array().is_some_and(several),
            "{value}"
        );
    }
    object
}
