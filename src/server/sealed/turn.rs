//! What rustls is asked to do with records that have arrived, and what it leaves to be sent.

use rustls::Error;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::outgoing::{ADDED, Outgoing};

/// What rustls is asked to do.
pub(super) struct Turn<'a> {
    pub(super) session: &'a mut UnbufferedServerConnection,
    pub(super) outgoing: &'a mut Outgoing,
    pub(super) is_over: &'a mut bool,
}

impl Turn<'_> {
    /// Goes through the records that have `arrived`: what is in them goes to `take`. Then it asks `write` to
    /// seal, where that can be. Gives how much of them is done with.
    pub(super) fn run(
        self,
        arrived: &mut [u8],
        mut take: impl FnMut(&[u8]),
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut Outgoing,
        ) -> Result<(), Error>,
    ) -> (usize, Result<(), Error>) {
        let mut used = 0;
        let mut failed = Ok(());
        // A session that is broken is asked for its alert, and for nothing else.
        while failed.is_ok() || self.session.wants_write() {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut arrived[used..]);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, self.outgoing),
                _ if failed.is_err() => Ok(false),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(true)
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        Some(Ok(record)) => {
                            discard += record.discard;
                            take(record.payload);
                        }
                        Some(Err(error)) => break Err(error),
                        None => break Ok(true),
                    }
                },
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    write(&mut traffic, self.outgoing).map(|()| false)
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(false),
                Ok(ConnectionState::PeerClosed) => {
                    *self.is_over = true;
                    Ok(true)
                }
                Ok(ConnectionState::Closed) => Ok(false),
                Ok(_) => Err(Error::General("an unknown state of TLS".to_owned())),
                Err(error) => Err(error),
            };
            used += discard;
            match goes_on {
                Ok(true) => {}
                Ok(false) => return (used, failed),
                Err(error) => failed = Err(error),
            }
        }
        (used, failed)
    }
}

/// Puts a message of rustls' own in line.
fn encode(
    data: &mut EncodeTlsData<'_, ServerConnectionData>,
    outgoing: &mut Outgoing,
) -> Result<bool, Error> {
    let mut least = ADDED;
    loop {
        match data.encode(outgoing.room(least)) {
            Ok(length) => {
                outgoing.put(length);
                return Ok(true);
            }
            Err(EncodeError::InsufficientSize(size)) => least = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return Ok(true),
        }
    }
}

/// A session may seal so and so many records, and no more.
pub(super) fn exhausted(error: &EncryptError) -> Error {
    Error::General(error.to_string())
}
