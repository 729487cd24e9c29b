//! Keys that were left for later, read in the background.

use std::sync::Arc;

use tokio::time::Instant;

use super::certificate::Certificate;

/// Reads the keys of all of `certificates`, on a thread that may block.
///
/// A few, then a pause of as long as they took, so that at most half of a processor is kept from others.
/// Which of them are no good, each says when it is asked for its key.
pub async fn read_all(certificates: Vec<Arc<Certificate>>) {
    let mut unread = certificates.into_iter().filter(|left| !left.is_read());
    loop {
        let few: Vec<_> = unread.by_ref().take(FEW).collect();
        if few.is_empty() {
            return;
        }
        let began = Instant::now();
        let reading = move || {
            for certificate in few {
                let _outcome = certificate.key();
            }
        };
        // One that made it panic is asked for again by whoever looks after it.
        let _read = tokio::task::spawn_blocking(reading).await;
        tokio::time::sleep(began.elapsed()).await;
    }
}

/// So many take some milliseconds.
const FEW: usize = 32;
