//! Query and form parameters → one JSON object, and the key taken out of them. Pure but for reading
//! a form's body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::credentials::Secret;

/// The parameter that carries the key.
const KEY: &str = "api_key";

/// Named values in the order they came; a repeated name has several.
#[derive(Default, PartialEq, Eq)]
pub struct Parameters {
    values: Vec<(String, Vec<String>)>,
    key: Option<Secret>,
}

/// A form that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadForm {
    /// The content type does not say where the parts end.
    #[error("the form has no boundary in its content type")]
    NoBoundary,
    /// The parts are not as the content type says.
    #[error("the form does not match its content type")]
    Broken(#[source] multer::Error),
    /// A value for nothing.
    #[error("a part of the form has no name")]
    NoName,
    /// A field that is no file is a JSON string, and so must be text.
    #[error("a field of the form is not UTF-8")]
    NotUtf8,
}

impl Parameters {
    /// Of a query or an urlencoded form (WHATWG URL, 5.1).
    pub fn parse(encoded: &[u8]) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(encoded) {
            parameters.add(&name, value.into_owned());
        }
        parameters
    }

    /// Of a multipart form (RFC 7578); a file becomes its base64.
    ///
    /// # Errors
    /// When the body does not match its content type.
    pub async fn parse_multipart(content_type: &str, body: Bytes) -> Result<Self, BadForm> {
        let boundary = multer::parse_boundary(content_type).map_err(|_| BadForm::NoBoundary)?;
        let body = futures_util::stream::once(async { Ok::<_, std::io::Error>(body) });
        let mut form = multer::Multipart::new(body, boundary);
        let mut parameters = Self::default();
        while let Some(field) = form.next_field().await.map_err(BadForm::Broken)? {
            let name = field.name().ok_or(BadForm::NoName)?.to_owned();
            let is_file = field.file_name().is_some();
            let data = field.bytes().await.map_err(BadForm::Broken)?;
            let value = if is_file {
                STANDARD.encode(&data)
            } else {
                match String::from_utf8(data.into()) {
                    Ok(text) => text,
                    Err(_) => return Err(BadForm::NotUtf8),
                }
            };
            parameters.add(&name, value);
        }
        Ok(parameters)
    }

    /// The same with those of `form` over them: a name in both has the form's values.
    pub fn overlaid_with(mut self, form: Self) -> Self {
        self.values
            .retain(|(name, _)| form.values.iter().all(|(other, _)| name != other));
        self.values.extend(form.values);
        self.key = self.key.or(form.key);
        self
    }

    /// Takes the key out.
    pub fn take_key(&mut self) -> Option<Secret> {
        self.key.take()
    }

    /// One JSON object: a string each, an array of strings for a repeated name; in the order of the names.
    pub fn to_json(&self) -> Vec<u8> {
        let mut sorted: Vec<_> = self.values.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| name);
        let pairs = sorted.iter().map(|(name, values)| (name, Values(values)));
        let mut json = Vec::with_capacity(128);
        serde_json::Serializer::new(&mut json)
            .collect_map(pairs)
            .expect("strings always serialise");
        json
    }

    fn add(&mut self, name: &str, value: String) {
        if name == KEY {
            if self.key.is_none() && !value.is_empty() {
                self.key = Some(Secret::new(value));
            }
            return;
        }
        match self.values.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.values.push((name.to_owned(), vec![value])),
        }
    }
}

/// What stands under one name.
struct Values<'a>(&'a [String]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [one] => serializer.serialize_str(one),
            many => serializer.collect_seq(many),
        }
    }
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A value may be a password, and where one is missing so may the name.
        out.write_str("Parameters([hidden])")
    }
}

/// Whether a query holds a key.
pub fn has_key(query: &str) -> bool {
    query.split('&').any(names_key)
}

/// A query without its key, every other byte as it was; and whether it had one.
pub fn without_key(query: &str) -> (String, bool) {
    let kept: Vec<&str> = query.split('&').filter(|pair| !names_key(pair)).collect();
    (kept.join("&"), has_key(query))
}

fn names_key(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    // Only an escape can write it otherwise.
    let escaped = || form_urlencoded::parse(name.as_bytes()).next();
    name == KEY || (name.contains('%') && escaped().is_some_and(|(name, _)| name == KEY))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(query: &str, expected: &str) {
        let json = Parameters::parse(query.as_bytes()).to_json();
        assert_eq!(String::from_utf8(json).unwrap(), expected, "{query}");
    }

    #[test]
    fn parameters_become_strings_and_repeated_ones_arrays() {
        check("", "{}");
        check("name=John", r#"{"name":"John"}"#);
        check("a=1&b=&c", r#"{"a":"1","b":"","c":""}"#);
        check("a=1&a=2&a=1", r#"{"a":["1","2","1"]}"#);
        check("name=J%C3%B6rg+M", r#"{"name":"Jörg M"}"#);
        check("a=%22%7B%5C", r#"{"a":"\"{\\"}"#);
        check("a=b=c", r#"{"a":"b=c"}"#);
        check("a=%zz", r#"{"a":"%zz"}"#);
        check("a=%ff", "{\"a\":\"\u{fffd}\"}");
    }

    #[test]
    fn the_key_is_taken_out_and_the_first_one_counts() {
        let mut parameters = Parameters::parse(b"api_key=one&a=b&api_key=two");
        assert_eq!(parameters.take_key(), Some(Secret::new("one")));
        assert_eq!(parameters.to_json(), br#"{"a":"b"}"#);
        let mut encoded = Parameters::parse(b"api%5Fkey=one");
        assert_eq!(encoded.take_key(), Some(Secret::new("one")));
        assert_eq!(Parameters::parse(b"api_key=").take_key(), None);
    }

    #[test]
    fn a_query_keeps_every_byte_but_the_key() {
        let check = |query: &str, expected: (&str, bool)| {
            assert_eq!(
                without_key(query),
                (expected.0.to_owned(), expected.1),
                "{query}"
            );
        };
        check("", ("", false));
        check("a=%zz&b=+", ("a=%zz&b=+", false));
        check("a=1&api_key=x&b=2", ("a=1&b=2", true));
        check("api%5fkey=x", ("", true));
        check("api_key", ("", true));
        check("xapi_key=1&api_keys=2", ("xapi_key=1&api_keys=2", false));
    }

    #[test]
    fn form_fields_lie_over_query_parameters() {
        let both = Parameters::parse(b"a=1&b=2&a=3&api_key=q")
            .overlaid_with(Parameters::parse(b"a=4&c=5&api_key=f"));
        assert_eq!(both.to_json(), br#"{"a":"4","b":"2","c":"5"}"#);
        assert_eq!(both.key, Some(Secret::new("q")));
    }

    fn multipart(body: &str) -> Result<String, String> {
        multipart_of_bytes(body.replace('\n', "\r\n").into())
    }

    fn multipart_of_bytes(body: Bytes) -> Result<String, String> {
        let parsing = Parameters::parse_multipart("multipart/form-data; boundary=XX", body);
        futures_util::FutureExt::now_or_never(parsing)
            .unwrap()
            .map(|parameters| String::from_utf8(parameters.to_json()).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_multipart_form_becomes_json_and_its_files_base64() {
        let form = "--XX\nContent-Disposition: form-data; name=\"a\"\n\nb c\n--XX\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"x.bin\"\n\nhi\n--XX--\n";
        assert_eq!(multipart(form).unwrap(), r#"{"a":"b c","f":"aGk="}"#);
    }

    #[test]
    fn a_broken_multipart_form_is_refused() {
        let broken = "the form does not match its content type";
        assert_eq!(multipart("no boundary here").unwrap_err(), broken);
        assert_eq!(
            multipart("--XX\nContent-Disposition: form-data; name=\"a\"\n\nb").unwrap_err(),
            broken
        );
        assert_eq!(
            multipart("--XX\nContent-Disposition: form-data\n\nb\n--XX--\n").unwrap_err(),
            "a part of the form has no name"
        );
        // The name is the client's own word: it may be a key that slipped out of its value.
        let field =
            b"--XX\r\nContent-Disposition: form-data; name=\"canary\"\r\n\r\n\xff\r\n--XX--\r\n";
        assert_eq!(
            multipart_of_bytes(Bytes::from_static(field)).unwrap_err(),
            "a field of the form is not UTF-8"
        );
    }

    proptest! {
        #[test]
        fn any_query_becomes_json_that_parses_and_never_holds_the_key(query in "[ -~]{0,200}") {
            let (rest, had_key) = without_key(&query);
            let mut all = Parameters::parse(query.as_bytes());
            let key = all.take_key();
            prop_assert!(had_key || key.is_none());
            let json: Value = serde_json::from_slice(&all.to_json()).unwrap();
            prop_assert!(json.get(KEY).is_none());
            prop_assert_eq!(Parameters::parse(rest.as_bytes()).to_json(), all.to_json());
        }
    }
}
