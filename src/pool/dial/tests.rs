use std::net::TcpListener;

use super::super::names::tests::{NameServer, Says};
use super::super::origin::Reach;
use super::super::outliers::Config;
use super::*;
use crate::telemetry::metrics::Metrics;

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

#[test]
fn errors_of_our_own_are_told_from_those_of_an_address() {
    let ours = |errno: Errno| is_ours(&io::Error::from_raw_os_error(errno.raw_os_error()));
    for errno in [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::ACCESS,
        Errno::PERM,
    ] {
        assert!(ours(errno), "{errno}");
    }
    for errno in [
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::HOSTUNREACH,
        Errno::TIMEDOUT,
    ] {
        assert!(!ours(errno), "{errno}");
    }
    assert!(!ours(Errno::INVAL));
}

/// One failure is enough.
fn outliers() -> Arc<Outliers> {
    let config = Config {
        failures: 1,
        ..Config::default()
    };
    Outliers::new(config, Metrics::new())
}

#[tokio::test]
async fn whoever_is_left_out_is_tried_where_the_others_never_answer() {
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let out = loop {
        let out = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = out.local_addr().unwrap().port();
        // Somebody else may have that port there.
        if silent
            .bind(&SocketAddr::from(([127, 0, 0, 3], port)).into())
            .is_ok()
        {
            break out;
        }
    };
    let port = out.local_addr().unwrap().port();
    // The system takes two for us, and drops what comes after them.
    silent.listen(0).unwrap();
    let quiet = SocketAddr::from(([127, 0, 0, 3], port));
    let mut filling = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&quiet, Duration::from_millis(50)) {
        filling.push(stream);
        assert!(filling.len() < 100, "it accepts without end");
    }

    let server = NameServer::new(Says::At(&["127.0.0.2", "127.0.0.3"], 60));
    let outliers = outliers();
    let dialer = dialer(true, &server).leaving_out(Arc::clone(&outliers));
    let a = origin(&format!("http://backend.example:{port}"));
    let addresses = vec![out.local_addr().unwrap(), quiet];
    for target in outliers.choose(&a, addresses) {
        if target.address != quiet {
            target.member.unwrap().failed();
        }
    }
    assert!(dialer.dial(&a).await.is_ok());
    assert!(out.accept().is_ok());
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_from_here_is_not_left_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nobody connects to all of a network.
    let server = NameServer::new(Says::At(&["255.255.255.255", "127.0.0.1"], 60));
    let outliers = outliers();
    let dialer = dialer(true, &server).leaving_out(Arc::clone(&outliers));
    let a = origin(&format!("http://backend.example:{port}"));
    for _ in 0..4 {
        assert!(dialer.dial(&a).await.is_ok());
    }
    let addresses = ["255.255.255.255", "127.0.0.1"];
    let addresses = addresses.map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    let known = outliers.choose(&a, addresses.into());
    let out = |target: &Target| target.member.as_ref().is_some_and(Member::is_out);
    assert!(!known.iter().any(out), "{known:?}");
}
