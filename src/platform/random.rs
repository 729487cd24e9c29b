//! Secrets that nobody can guess, and what is kept of them instead.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `BYTES` random bytes as text that is safe in a URL.
pub(super) fn token<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).expect("the system's random numbers never run out");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is kept of a secret: its SHA-256, which is enough to know it again.
///
/// Only for secrets that cannot be guessed; a password needs a slow hash. Looking a digest up takes
/// a time that depends on the digest alone, and that cannot be steered towards one that is kept.
pub(super) fn digest(secret: &str) -> String {
    text(&sha256(secret))
}

/// The same as bytes, to be held in memory.
pub(super) fn sha256(secret: &str) -> Sha256 {
    let mut bytes = [0; _];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    bytes
}

/// A digest as the keys of records write it.
pub(super) fn text(digest: &Sha256) -> String {
    URL_SAFE_NO_PAD.encode(digest)
}

/// A SHA-256.
pub(super) type Sha256 = [u8; digest::SHA256_OUTPUT_LEN];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_safe_in_a_url() {
        assert_eq!(token::<6>().len(), 8);
        assert_eq!(token::<32>().len(), 43);
        assert_ne!(token::<32>(), token::<32>());
    }

    #[test]
    fn a_digest_is_sha_256() {
        assert_eq!(digest("abc"), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    }
}
