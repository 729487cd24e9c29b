//! Passwords: hashed slowly, on a few threads of their own, with a short queue before them.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use super::error::Error;
use crate::credentials::Secret;

/// Hashes and checks passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    /// Those that run or wait.
    admitted: Arc<Semaphore>,
    /// Those that run.
    running: Arc<Semaphore>,
}

impl Passwords {
    /// Nothing runs yet.
    pub(super) fn new() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(RUNNING + WAITING)),
            running: Arc::new(Semaphore::new(RUNNING)),
        }
    }

    /// The hash to keep for a password.
    pub(super) async fn hash(&self, password: Secret) -> Result<String, Error> {
        self.run(move || hash(&password)).await?
    }

    /// Whether `password` fits `hash`; where there is none, it takes as long and fits nothing.
    pub(super) async fn fits(&self, password: Secret, hash: Option<String>) -> Result<bool, Error> {
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(NOBODY);
            let parsed = PasswordHash::new(hash).map_err(|_| Error::Internal)?;
            let fits = Argon2::default()
                .verify_password(password.expose().as_bytes(), &parsed)
                .is_ok();
            Ok(known && fits)
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = Arc::clone(&self.admitted);
        let admitted = admitted.try_acquire_owned().map_err(|_| Error::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| Error::Internal)?;
        let working = tokio::task::spawn_blocking(move || {
            // Given back when the work is done, which goes on when its caller has left.
            let _held = (admitted, running);
            work()
        });
        working.await.map_err(|_| Error::Internal)
    }
}

fn hash(password: &Secret) -> Result<String, Error> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.expose().as_bytes())
        .map_err(|_| Error::Internal)?;
    Ok(hash.to_string())
}

/// At once: each takes a core and 19 MiB for a moment.
const RUNNING: usize = 2;

/// In line behind them; more are told to come back.
const WAITING: usize = 64;

/// The hash of nobody's password, with the parameters that all others have.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_that_leaves_frees_no_thread_that_still_works() {
        let passwords = Passwords::new();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        {
            let mut working = std::pin::pin!(passwords.run(move || finished.recv()));
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(working.as_mut().poll(context).is_pending())
            });
            assert!(polled.await);
        }
        assert_eq!(passwords.running.available_permits(), RUNNING - 1);
        finish.send(()).unwrap();
        let all = u32::try_from(RUNNING).unwrap();
        let _free_again = passwords.running.acquire_many(all).await.unwrap();
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new();
        let secret = |text: &str| Secret::new(text);
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let fits = |text: &str, hash: &str| passwords.fits(secret(text), Some(hash.to_owned()));
        assert!(fits("correct horse", &hash).await.unwrap());
        assert!(!fits("correct horsf", &hash).await.unwrap());
        assert!(!passwords.fits(secret("any"), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_said_at_once() {
        let passwords = Passwords::new();
        let attempt = || passwords.run(|| ());
        let _all = passwords.admitted.try_acquire_many(66).unwrap();
        assert!(matches!(attempt().await, Err(Error::Busy)));
    }
}
