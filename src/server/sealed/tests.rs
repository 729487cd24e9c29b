use std::io::IoSlice;
use std::time::Duration;

use futures_util::future::poll_immediate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::provider;
use crate::wire::link::Transport;

/// Both sides of what they agree on.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = parameters.self_signed(&key).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Two that have agreed.
async fn both(version: &'static SupportedProtocolVersion) -> (Sealed, TlsStream<TcpStream>) {
    let (server, client) = configs(version);
    let (ours, theirs) = connected().await;
    let name = ServerName::try_from("a.test").unwrap();
    let agreed = tokio::join!(
        Sealed::agree(ours, server, Vec::new()),
        TlsConnector::from(client).connect(name, theirs),
    );
    (agreed.0.unwrap(), agreed.1.unwrap())
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await;
    (listener.accept().await.unwrap().0, theirs.unwrap())
}

/// Bytes of which no two pieces are alike.
fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place * 7 + place / 251) as u8)
        .collect()
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Within a time that no machine needs.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, future).await.unwrap()
}

#[tokio::test]
async fn everything_arrives_in_both_directions_however_it_is_cut() {
    for version in VERSIONS {
        for (length, piece) in [(1, 1), (5_000, 7), (300_000, 1_000), (3 << 20, 200_000)] {
            let (ours, theirs) = both(version).await;
            let (mut our_reader, mut our_writer) = tokio::io::split(ours);
            let (mut their_reader, mut their_writer) = tokio::io::split(theirs);
            let sent = bytes(length);
            let sending = async {
                for piece in sent.chunks(piece) {
                    our_writer.write_all(piece).await.unwrap();
                }
                our_writer.shutdown().await.unwrap();
            };
            let sending_back = async {
                for piece in sent.chunks(piece) {
                    their_writer.write_all(piece).await.unwrap();
                }
                their_writer.shutdown().await.unwrap();
            };
            let (mut came, mut came_back) = (Vec::new(), Vec::new());
            let reading = async {
                let mut room = vec![0; piece];
                loop {
                    match our_reader.read(&mut room).await.unwrap() {
                        0 => break,
                        read => came.extend_from_slice(&room[..read]),
                    }
                }
            };
            let reading_back = async { their_reader.read_to_end(&mut came_back).await.unwrap() };
            soon(async { tokio::join!(sending, sending_back, reading, reading_back) }).await;
            assert!(came == sent && came_back == sent, "{length} by {piece}");
        }
    }
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte() {
    for version in VERSIONS {
        let (server, client) = configs(version);
        let (ours, between) = connected().await;
        let (theirs, further) = connected().await;
        let (mut from_server, mut to_server) = between.into_split();
        let (mut from_client, mut to_client) = further.into_split();
        to_server.writable().await.unwrap();
        let slowly = tokio::spawn(async move {
            let mut byte = [0];
            while from_client.read_exact(&mut byte).await.is_ok() {
                to_server.write_all(&byte).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let back = tokio::spawn(async move {
            let _end = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
        let name = ServerName::try_from("a.test").unwrap();
        let connector = TlsConnector::from(client);
        let (ours, theirs) = soon(async {
            tokio::join!(
                Sealed::agree(ours, server, Vec::new()),
                connector.connect(name, theirs)
            )
        })
        .await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        theirs.write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        soon(ours.read_exact(&mut said)).await.unwrap();
        assert_eq!(&said, b"hello");
        drop((ours, theirs));
        slowly.await.unwrap();
        back.await.unwrap();
    }
}

#[tokio::test]
async fn tickets_go_with_the_first_answer_or_when_nothing_else_goes() {
    for answers in [true, false] {
        let (mut ours, mut theirs) = both(&rustls::version::TLS13).await;
        assert!(!ours.outgoing.is_empty());
        let unread = poll_fn(|context| Poll::Ready(ours.poll_unread(context)));
        assert!(unread.await.is_ready(), "there is something to do");
        if answers {
            ours.write_all(b"answer").await.unwrap();
            ours.flush().await.unwrap();
            let mut answer = [0; 6];
            soon(theirs.read_exact(&mut answer)).await.unwrap();
        } else {
            ours.settle();
            let told = async {
                while theirs.get_ref().1.tls13_tickets_received() < 2 {
                    assert!(poll_immediate(theirs.read_u8()).await.is_none());
                    tokio::task::yield_now().await;
                }
            };
            soon(told).await;
        }
        assert_eq!(theirs.get_ref().1.tls13_tickets_received(), 2);
    }
}

#[tokio::test]
async fn pieces_that_are_written_together_arrive_in_order_and_share_a_record_if_small() {
    let (mut ours, mut theirs) = both(&rustls::version::TLS13).await;
    let large = bytes(100_000);
    for pieces in [
        [&b"head"[..], &large[..], b"tail"],
        [&b""[..], b"small", b"and small"],
        [&large[..], b"", b"tail"],
    ] {
        let whole = pieces.concat();
        let mut sent = 0;
        while sent < whole.len() {
            let mut slices = pieces.map(IoSlice::new);
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, sent);
            sent += ours.write_vectored(left).await.unwrap();
            if whole.len() < 100 {
                assert_eq!(sent, whole.len());
            }
        }
        ours.flush().await.unwrap();
        let mut came = vec![0; whole.len()];
        soon(theirs.read_exact(&mut came)).await.unwrap();
        assert!(came == whole);
    }
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = both(version).await;
        let mut question = [0; 8];
        theirs.write_all(b"question").await.unwrap();
        soon(ours.read_exact(&mut question)).await.unwrap();
        ours.write_all(&bytes(100_000)).await.unwrap();
        ours.flush().await.unwrap();
        let mut answer = vec![0; 100_000];
        soon(theirs.read_exact(&mut answer)).await.unwrap();
        assert!(answer == bytes(100_000));
        ours.settle();
        assert_eq!(ours.begun.capacity(), 0);
        assert_eq!(ours.opened.capacity(), 0);
        assert!(ours.outgoing.is_empty());
    }
}

#[tokio::test]
async fn an_end_that_was_said_is_told_from_one_that_was_not() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = both(version).await;
        theirs.write_all(b"last").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut said = Vec::new();
        soon(ours.read_to_end(&mut said)).await.unwrap();
        assert_eq!(said, b"last");

        let (mut ours, theirs) = both(version).await;
        drop(theirs.into_inner().0);
        let ended = soon(ours.read_to_end(&mut said)).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn our_end_is_said_once_behind_everything_else() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = both(version).await;
        ours.write_all(b"last").await.unwrap();
        ours.farewell();
        ours.farewell();
        let late = ours.write_all(b"more").await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
        drop(ours);
        let mut said = Vec::new();
        // Not an error: the client knows that nothing is missing.
        soon(theirs.read_to_end(&mut said)).await.unwrap();
        assert_eq!(said, b"last");
    }
}

#[tokio::test]
async fn other_keys_in_the_middle_are_followed() {
    let (mut ours, mut theirs) = both(&rustls::version::TLS13).await;
    for round in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"question").await.unwrap();
        let mut question = [0; 8];
        soon(ours.read_exact(&mut question)).await.unwrap();
        ours.write_all(b"answer").await.unwrap();
        ours.flush().await.unwrap();
        let mut answer = [0; 6];
        soon(theirs.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"answer", "{round}");
    }
}

#[tokio::test]
async fn what_is_no_record_ends_the_connection_and_the_client_is_told_why() {
    let (mut ours, theirs) = both(&rustls::version::TLS13).await;
    let mut raw = theirs.into_inner().0;
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let broken = soon(ours.read_u8()).await.unwrap_err();
    assert_eq!(broken.kind(), io::ErrorKind::InvalidData);
    assert!(ours.write_all(b"answer").await.is_err());
    drop(ours);
    let mut told = Vec::new();
    soon(raw.read_to_end(&mut told)).await.unwrap();
    // Tickets and an alert, each in a record of sealed data (RFC 8446, 5.2).
    assert_eq!(told[0], 23);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_the_writer_up() {
    let (mut ours, mut theirs) = both(&rustls::version::TLS13).await;
    let sent = bytes(16 << 20);
    let writing = async {
        ours.write_all(&sent).await.unwrap();
        ours.flush().await.unwrap();
    };
    let mut writing = std::pin::pin!(writing);
    assert!(poll_immediate(&mut writing).await.is_none());
    let mut came = vec![0; sent.len()];
    let reading = async { theirs.read_exact(&mut came).await.unwrap() };
    soon(async { tokio::join!(writing, reading) }).await;
    assert!(came == sent);
}
