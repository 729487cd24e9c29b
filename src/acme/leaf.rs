//! What a renewal needs to know of a certificate.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;

use super::schedule::Validity;

/// The first certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) validity: Validity,
    /// What its authority calls it when asked when to renew it (RFC 9773, 4.1).
    pub(super) identifier: Option<CertificateIdentifier<'static>>,
}

impl Leaf {
    /// Reads the first certificate of what may hold a key too.
    pub(super) fn read(pem: &[u8]) -> Option<Self> {
        let certificate = Pem::iter_from_buffer(pem)
            .filter_map(Result::ok)
            .find(|pem| pem.label == "CERTIFICATE")?;
        let certificate = certificate.parse_x509().ok()?;
        let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        let validity = certificate.validity();
        let authority = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    authority.key_identifier.as_ref().map(|key| key.0)
                }
                _ => None,
            }
        });
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes).into();
        Some(Self {
            validity: Validity {
                not_before: at(validity.not_before.timestamp()),
                not_after: at(validity.not_after.timestamp()),
            },
            identifier: authority.map(|authority| CertificateIdentifier {
                authority_key_identifier: encoded(authority),
                serial: encoded(certificate.raw_serial()),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_life_and_its_identifier() {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::default();
        authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![0, 1, 2]);
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 4, 1);
        parameters.serial_number = Some(rcgen::SerialNumber::from(vec![0x87, 0x65]));
        parameters.use_authority_key_identifier_extension = true;
        let chain = parameters.signed_by(&key, &issuer).unwrap().pem();
        let pem = format!("{}{chain}", key.serialize_pem());
        let leaf = Leaf::read(pem.as_bytes()).unwrap();
        assert_eq!(leaf.validity.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(
            leaf.validity.two_thirds().to_string(),
            "2026-03-02T00:00:00Z"
        );
        // With the leading zero that the sign of a DER integer needs (RFC 9773, 4.1).
        assert_eq!(leaf.identifier.unwrap().to_string(), "AAEC.AIdl");
        assert_eq!(Leaf::read(key.serialize_pem().as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_certificate_makes_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            use base64::prelude::BASE64_STANDARD;
            let text = BASE64_STANDARD.encode(&bytes);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            let _ = Leaf::read(pem.as_bytes());
            let _ = Leaf::read(&bytes);
        }
    }
}
