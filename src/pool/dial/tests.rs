use std::net::TcpListener;

use super::super::names::tests::{NameServer, Says};
use super::super::origin::Reach;
use super::*;

/// One that looks names up at `server`.
fn dialer(allow_private: bool, server: &NameServer) -> Dialer {
    let guard = Guard::new(allow_private, Vec::new());
    let mut dialer =
        Dialer::new(guard, Duration::from_secs(5), "", &[], Handle::current()).unwrap();
    dialer.names = server.names();
    dialer
}

fn origin(url: &str) -> Origin {
    Origin::of(&url::Url::parse(url).unwrap(), Reach::Workload).unwrap()
}

#[tokio::test]
async fn a_name_leads_to_whichever_of_its_addresses_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nothing listens at the first two.
    let server = NameServer::new(Says::At(&["::1", "127.0.0.2", "127.0.0.1"], 60));
    let dialer = dialer(true, &server);
    let a = origin(&format!("http://backend.example:{port}"));
    assert!(matches!(
        dialer.dial(&a).await,
        Ok(Dialled::Own(Stream::Plain(_), None))
    ));
    assert!(listener.accept().is_ok());
}

#[tokio::test]
async fn no_address_of_a_name_is_dialled_that_the_guard_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = NameServer::new(Says::At(&["127.0.0.1", "::ffff:127.0.0.1"], 60));
    let dialer = dialer(false, &server);
    let a = origin(&format!("http://backend.example:{port}"));
    let refused = dialer.dial(&a).await;
    assert!(
        matches!(refused, Err(DialError::Forbidden { .. })),
        "{refused:?}"
    );
    assert!(listener.accept().is_err());
}

#[tokio::test]
async fn what_the_guard_leaves_of_a_name_is_dialled_and_not_without_end() {
    let dialer = dialer(false, &NameServer::new(Says::Missing));
    let a = origin("http://backend.example:81");
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let left = dialer.permitted(&a, addresses(&["127.0.0.1", "8.8.8.8", "::1", "10.0.0.1"]));
    assert_eq!(left.unwrap(), ["8.8.8.8:81".parse().unwrap()]);
    let many = (0..100).map(|last| IpAddr::from([8, 8, 8, last])).collect();
    assert_eq!(dialer.permitted(&a, many).unwrap().len(), MOST_ADDRESSES);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_to_be() {
    let server = NameServer::new(Says::Missing);
    let dialer = dialer(true, &server);
    let refused = dialer.dial(&origin("http://gone.example")).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, DialError::Name { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot resolve http://gone.example:80");
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dialer = dialer(true, &NameServer::new(Says::Missing));
    dialer.timeout = Duration::from_millis(20);
    let a = origin(&format!("https://{}", listener.local_addr().unwrap()));
    let dialled = tokio::time::timeout(Duration::from_secs(10), dialer.dial(&a)).await;
    let error = dialled.unwrap().unwrap_err();
    assert!(matches!(error, DialError::TimedOut { .. }), "{error:?}");
}
