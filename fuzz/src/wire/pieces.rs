//! Bytes that arrive in pieces, and whoever reads them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Room in each direction, for more than any test writes.
const ROOM: usize = 1 << 20;

/// One way to cut bytes into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Whole,
    /// After each byte.
    Bytes,
    /// Here and there, as a number says.
    Sown(u64),
}

impl Cut {
    /// The pieces of `input`, none of them empty.
    #[must_use]
    pub fn apply(self, input: &[u8]) -> Vec<&[u8]> {
        let mut state = match self {
            Self::Whole => return vec![input],
            Self::Bytes => return input.chunks(1).collect(),
            Self::Sown(seed) => seed,
        };
        let mut pieces = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Mostly short pieces, and a long one now and then.
            let most = if state >> 62 == 0 { 64 } else { 8 };
            let length = ((state >> 33) as usize % most + 1).min(rest.len());
            let (piece, after) = rest.split_at(length);
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// Lets `reader` read `pieces` from its end of a connection: the next one comes when it has nothing
/// left to do, and then the end of the stream. What it writes is thrown away.
///
/// `None` when it waits for more after that.
pub fn read<F: Future>(
    pieces: &[&[u8]],
    reader: impl FnOnce(DuplexStream) -> F,
) -> Option<F::Output> {
    let (near, mut far) = tokio::io::duplex(ROOM);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut reader = pin!(reader(near));
    let mut pieces = pieces.iter();
    let mut ended = false;
    loop {
        if let Poll::Ready(output) = reader.as_mut().poll(&mut context) {
            return Some(output);
        }
        discard(&mut far);
        if woken.0.swap(false, Ordering::Relaxed) {
            continue;
        }
        match pieces.next() {
            Some(piece) => write(&mut far, piece),
            None if ended => return None,
            None => {
                ended = true;
                let _closed = Pin::new(&mut far).poll_shutdown(&mut noop());
            }
        }
    }
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn write(far: &mut DuplexStream, mut piece: &[u8]) {
    while !piece.is_empty() {
        match Pin::new(&mut *far).poll_write(&mut noop(), piece) {
            Poll::Ready(Ok(written)) => piece = &piece[written..],
            // The reader has closed its end, or takes nothing more: it has read enough.
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

fn discard(far: &mut DuplexStream) {
    let mut space = [0; 1024];
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        let read = Pin::new(&mut *far).poll_read(&mut noop(), &mut buffer);
        if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
            return;
        }
    }
}
