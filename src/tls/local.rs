//! An authority of our own for `dev`: made once, kept in two files, trusted by whoever wants to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{BadPair, Certificate};

/// The authority, and where its files are.
pub struct Authority {
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    notice: Option<String>,
}

/// Why there is no authority, or it signs nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadAuthority {
    /// Its files cannot be read or written.
    #[error("the local authority in {0} cannot be read or written: {1}")]
    Files(PathBuf, #[source] io::Error),
    /// It cannot sign.
    #[error("the local authority cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
    /// What it signed is no certificate.
    #[error("the local authority signed what is no certificate: {0}")]
    Signed(#[from] BadPair),
}

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long an authority lasts, and a certificate. No client takes one of more than 825 days.
const AUTHORITY_DAYS: i32 = 3650;
const CERTIFICATE_DAYS: i32 = 90;
/// What lasts no longer than this is made anew.
const TOO_SHORT: i32 = 30;

impl std::fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority in `folder`, which is made where there is none: one that is trusted, and by those
    /// who trust it believed for nothing but `names` and what is below them.
    ///
    /// # Errors
    /// When its files cannot be read or written.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, BadAuthority> {
        let [file, key_file] = ["ca.crt", "ca.key"].map(|name| folder.join(name));
        let unusable = |error| BadAuthority::Files(folder.to_owned(), error);
        let notice = match (
            read(&file).map_err(unusable)?,
            read(&key_file).map_err(unusable)?,
        ) {
            (None, None) => None,
            (certificate, key) => match check(certificate.as_deref(), key.as_deref()) {
                Ok(key) => {
                    let issuer = Issuer::new(parameters(&key, names)?, key);
                    return Ok(Self {
                        file,
                        issuer,
                        notice: None,
                    });
                }
                Err(reason) => {
                    let aside = [set_aside(&file), set_aside(&key_file)];
                    aside
                        .into_iter()
                        .collect::<io::Result<()>>()
                        .map_err(unusable)?;
                    let file = file.display();
                    Some(format!(
                        "{reason}: a new authority was made in its place, the old files end in `.old`; whoever trusted it has to trust {file} anew"
                    ))
                }
            },
        };
        let key = KeyPair::generate()?;
        let parameters = parameters(&key, names)?;
        let certificate = parameters.self_signed(&key)?;
        // The key first: a certificate without one is no authority, and is made anew.
        write(&key_file, &key.serialize_pem(), 0o600).map_err(unusable)?;
        write(&file, &certificate.pem(), 0o644).map_err(unusable)?;
        let issuer = Issuer::new(parameters, key);
        Ok(Self {
            file,
            issuer,
            notice,
        })
    }

    /// The certificate of the authority, which clients are to trust.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Why it is not the one that was there before.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Makes certificates for `names`, which may be wildcards and addresses: one for all hosts, and one for
    /// all addresses.
    ///
    /// Clients whose TLS is `BoringSSL`, as that of gRPC is, cannot compare an address with what an
    /// authority is allowed, and refuse a certificate for hosts that names one too.
    ///
    /// # Errors
    /// When it cannot.
    pub fn issue(&self, names: &[String]) -> Result<Vec<Arc<Certificate>>, BadAuthority> {
        let is_address = |name: &&String| name.parse::<IpAddr>().is_ok();
        let (addresses, hosts): (Vec<&String>, Vec<&String>) = names.iter().partition(is_address);
        [("local", hosts), ("local-addresses", addresses)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(label, names)| self.sign(label, names).map(Arc::new))
            .collect()
    }

    fn sign(&self, label: &str, names: Vec<&String>) -> Result<Certificate, BadAuthority> {
        let names: Vec<String> = names.into_iter().cloned().collect();
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names)?;
        last(&mut parameters, CERTIFICATE_DAYS);
        parameters.distinguished_name = Default::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "M3O Ingress dev");
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let chain = parameters.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Certificate::from_pem(
            label,
            chain.as_bytes(),
            key.as_bytes(),
        )?)
    }
}

/// Whether what lasts until `not_after` is to be made anew at `now`.
#[must_use]
pub fn is_due(not_after: Timestamp, now: Timestamp) -> bool {
    not_after.duration_since(now) < DAY * TOO_SHORT
}

/// The key of an authority that is still good.
fn check(certificate: Option<&str>, key: Option<&str>) -> Result<KeyPair, &'static str> {
    let certificate = certificate.ok_or("the certificate of the local authority is gone")?;
    let key = key.ok_or("the key of the local authority is gone")?;
    let key = KeyPair::from_pem(key).map_err(|_| "the key of the local authority is broken")?;
    let broken = "the certificate of the local authority is broken";
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| broken)?;
    let (_, read) = X509Certificate::from_der(&der).map_err(|_| broken)?;
    if read.subject_pki.raw != key.subject_public_key_info() {
        return Err("the certificate of the local authority belongs to another key");
    }
    let ends = Timestamp::from_second(read.validity().not_after.timestamp()).map_err(|_| broken)?;
    if is_due(ends, Timestamp::now()) {
        return Err("the local authority ends soon");
    }
    Ok(key)
}

/// What an authority with `key` says of itself.
fn parameters(key: &KeyPair, names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    last(&mut parameters, AUTHORITY_DAYS);
    let identifier = parameters.key_identifier(key);
    let short: String = identifier
        .iter()
        .take(4)
        .map(|octet| format!("{octet:02x}"))
        .collect();
    // Two of the same name in one list of trust are mistaken for each other.
    let name = format!("M3O Ingress local authority {short}");
    parameters.distinguished_name = Default::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // RFC 5280, 4.2.1.10: a stolen key is of no use for other names.
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.iter().map(|name| subtree(name)).collect(),
        excluded_subtrees: Vec::new(),
    });
    Ok(parameters)
}

fn subtree(name: &str) -> GeneralSubtree {
    match name.parse() {
        Ok(IpAddr::V4(address)) => {
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address.octets(), 32))
        }
        Ok(IpAddr::V6(address)) => {
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(address.octets(), 128))
        }
        Err(_) => GeneralSubtree::DnsName(name.strip_prefix("*.").unwrap_or(name).to_owned()),
    }
}

/// From yesterday, as clocks differ, for so many days.
fn last(parameters: &mut CertificateParams, days: i32) {
    let day = |days: i32| {
        let then = Timestamp::now() + DAY * days;
        let date = Offset::UTC.to_datetime(then).date();
        let part = |part: i8| part.unsigned_abs();
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    parameters.not_before = day(-1);
    parameters.not_after = day(days);
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read(file) {
        // What is no text is broken, and said to be.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_aside(file: &Path) -> io::Result<()> {
    match fs::rename(file, file.with_added_extension("old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes the whole file or none.
fn write(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = file.with_added_extension("new");
    let _left_by_a_crash = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(mode).open(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wire::Covers as _;

    fn names() -> Vec<String> {
        ["localhost", "*.app.localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path(), &names()).unwrap();
        assert_eq!(first.notice(), None);
        let made = fs::read(first.file()).unwrap();
        let key = folder.path().join("ca.key");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = Authority::open(folder.path(), &names()).unwrap();
        assert_eq!(second.notice(), None);
        assert_eq!(fs::read(second.file()).unwrap(), made);
    }

    #[test]
    fn what_it_issues_covers_its_names_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), &names()).unwrap();
        let issued = authority.issue(&names()).unwrap();
        let [hosts, addresses] = &issued[..] else {
            panic!("{issued:?}");
        };
        for (certificate, other, name) in [
            (hosts, addresses, "localhost"),
            (hosts, addresses, "blog.app.localhost"),
            (addresses, hosts, "127.0.0.1"),
            (addresses, hosts, "[::1]"),
        ] {
            assert!(certificate.covers(name) && !other.covers(name), "{name}");
        }
        let now = Timestamp::now();
        for certificate in issued {
            assert!(!is_due(certificate.not_after(), now));
            assert!(!is_due(certificate.not_after(), now + DAY * 55));
            assert!(is_due(certificate.not_after(), now + DAY * 65));
        }
    }

    #[test]
    fn a_broken_authority_is_set_aside_and_made_anew() {
        let check = |broken: &str, text: Option<&str>, expected: &str| {
            let folder = tempfile::tempdir().unwrap();
            let first = Authority::open(folder.path(), &names()).unwrap();
            let before = fs::read(first.file()).unwrap();
            let file = folder.path().join(broken);
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let second = Authority::open(folder.path(), &names()).unwrap();
            let notice = second.notice().unwrap();
            assert!(notice.contains(expected), "{notice}");
            assert!(notice.contains("ca.crt anew"), "{notice}");
            assert_ne!(fs::read(second.file()).unwrap(), before);
            if broken == "ca.key" {
                assert_eq!(fs::read(folder.path().join("ca.crt.old")).unwrap(), before);
            }
            assert_eq!(
                Authority::open(folder.path(), &names()).unwrap().notice(),
                None
            );
        };
        check("ca.crt", Some("half"), "is broken");
        check("ca.key", Some("half"), "is broken");
        check("ca.crt", None, "is gone");
        check("ca.key", None, "is gone");
        let other = KeyPair::generate().unwrap().serialize_pem();
        check("ca.key", Some(&other), "another key");
    }
}
