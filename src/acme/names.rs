//! The names that a certificate is ordered for.

use std::fmt;

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hosts::HostName;

/// A host name, or `*.` and a host name. Lower case, no port, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(Box<str>);

/// At most so many octets make a name (RFC 1035, 2.3.4); the text has one dot less at its end.
const LONGEST: usize = 253;

/// At most so many octets make a label.
const LONGEST_LABEL: usize = 63;

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (wildcard, host) = match text.strip_prefix("*.") {
            Some(host) => ("*.", host),
            None => ("", text),
        };
        if host.contains('*') {
            return Err(format!(
                "`{text}` is no name: a wildcard is one whole label in front, like \"*.m3o.app\""
            ));
        }
        let host: HostName = host.parse()?;
        let host = host.as_str();
        if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
            return Err(format!("`{text}` is an address: give a name"));
        }
        if host.len() + wildcard.len() > LONGEST {
            return Err(format!("a name has at most {LONGEST} characters"));
        }
        // An authority takes letters, digits and hyphens only (RFC 1123, 2.1).
        let fine = |label: &str| {
            !label.is_empty()
                && label.len() <= LONGEST_LABEL
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !host.split('.').all(fine) {
            return Err(format!(
                "`{text}` is no name that a certificate can be for: its labels are letters, digits and hyphens"
            ));
        }
        Ok(Self(format!("{wildcard}{host}").into()))
    }

    /// The name, with its wildcard.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for any label in front.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without its wildcard: what an authority calls the identifier.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The names of one certificate: at least one, none twice, the first one gives it its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameSet(Vec<Name>);

/// Authorities take no more in one certificate.
const MOST: usize = 100;

impl NameSet {
    /// A set of these names.
    ///
    /// # Errors
    /// A text that says what is wrong with them.
    pub fn new(names: Vec<Name>) -> Result<Self, String> {
        if names.is_empty() || names.len() > MOST {
            return Err(format!("a certificate has 1 to {MOST} names"));
        }
        let twice = names
            .iter()
            .enumerate()
            .find(|(index, name)| names[..*index].contains(name));
        match twice {
            Some((_, name)) => Err(format!("`{name}` is there twice")),
            None => Ok(Self(names)),
        }
    }

    /// A set of one name.
    #[must_use]
    pub fn one(name: Name) -> Self {
        Self(vec![name])
    }

    /// The first name.
    #[must_use]
    pub fn first(&self) -> &Name {
        &self.0[0]
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }
}

impl fmt::Display for NameSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(out, "{comma}{name}")?;
        }
        Ok(())
    }
}

impl Serialize for NameSet {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [name] => name.serialize(out),
            names => names.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for NameSet {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(OneOrMany)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = NameSet;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NameSet, E> {
        let name = Name::deserialize(StrDeserializer::new(text))?;
        Ok(NameSet::one(name))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<NameSet, A::Error> {
        let names = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        NameSet::new(names).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_with_or_without_a_whole_label_of_wildcard() {
        let check = |text: &str, expected: Option<&str>| {
            let name = Name::parse(text);
            assert_eq!(name.ok().as_ref().map(Name::as_str), expected, "{text}");
        };
        check("m3o.app", Some("m3o.app"));
        check("*.M3O.app.", Some("*.m3o.app"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
        for none in [
            "",
            "*",
            "*.",
            "*.*.m3o.app",
            "a*.m3o.app",
            "m3o.app:443",
            "127.0.0.1",
            "[::1]",
            "*.127.0.0.1",
            "m3o..app",
            ".m3o.app",
            "-a.m3o.app",
            "a_b.m3o.app",
            "https://m3o.app",
            "../m3o.app",
            "m3ö.app",
        ] {
            check(none, None);
        }
        check(&format!("{}.app", "a".repeat(64)), None);
        check(&["a"; 130].join("."), None);
    }

    #[test]
    fn a_wildcard_has_a_base() {
        let name = Name::parse("*.m3o.app").unwrap();
        assert!(name.is_wildcard());
        assert_eq!(name.base(), "m3o.app");
    }

    #[test]
    fn no_name_is_twice_in_a_set() {
        let name = || Name::parse("m3o.app").unwrap();
        assert!(NameSet::new(Vec::new()).is_err());
        assert!(NameSet::new(vec![name(), name()]).is_err());
        assert_eq!(NameSet::new(vec![name()]), Ok(NameSet::one(name())));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_for_a_name_is_canonical_and_safe_in_a_file_name(text in "[ -~é]{0,30}") {
            if let Ok(name) = Name::parse(&text) {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
                proptest::prop_assert!(name.base().bytes().all(plain), "{}", name);
                proptest::prop_assert!(!name.as_str().contains("..") && !name.base().starts_with('.'));
                proptest::prop_assert_eq!(Name::parse(name.as_str()), Ok(name));
            }
        }
    }
}
