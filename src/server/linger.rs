//! The end of a connection whose client may still be sending.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Takes what the client still sends and throws it away for a moment.
///
/// RFC 9112, 9.6: closing with data unread resets the connection, and the reset may overtake the
/// answer that is on its way.
pub(super) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let discarding = async {
        stream.shutdown().await?;
        tokio::io::copy(
            &mut (&mut stream).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await
    };
    let _client_gone_or_patience_over = tokio::time::timeout(LINGER_TIME, discarding).await;
}

const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 << 20;
