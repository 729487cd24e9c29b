use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts};
use hickory_resolver::net::{DnsError, NoRecords};
use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::{ResponseCache, TtlConfig};

use super::*;

/// A name server on loopback that counts what it is asked. Its thread ends with the process.
pub(in super::super) struct NameServer {
    address: SocketAddr,
    /// Number and kind of each question.
    asked: Arc<Mutex<HashSet<(u16, RecordType)>>>,
}

/// What it says of any name.
pub(in super::super) enum Says {
    /// These addresses, good for so many seconds.
    At(&'static [&'static str], u32),
    /// That there is no such name.
    Missing,
}

impl NameServer {
    pub(in super::super) fn new(says: Says) -> Self {
        Self::answering(move |query, answer| {
            let Says::At(addresses, ttl) = &says else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                return true;
            };
            for address in *addresses {
                let data = match address.parse().unwrap() {
                    IpAddr::V4(v4) => RData::A(v4.into()),
                    IpAddr::V6(v6) => RData::AAAA(v6.into()),
                };
                if data.record_type() == query.query_type() {
                    let record = Record::from_rdata(query.name().clone(), *ttl, data);
                    answer.add_answer(record);
                }
            }
            true
        })
    }

    /// Answers where `fill` says yes.
    fn answering(fill: impl Fn(&Query, &mut Message) -> bool + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<HashSet<_>>>::default();
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                // One that is sent again, because its answer took long, is the same question.
                let id = question.metadata.id;
                counted.lock().unwrap().insert((id, query.query_type()));
                let mut answer = Message::response(id, OpCode::Query);
                answer.add_query(query.clone());
                if fill(&query, &mut answer) {
                    socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
                }
            }
        });
        Self { address, asked }
    }

    /// Look-ups that ask nobody else.
    pub(in super::super) fn names(&self) -> Names {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let mut server = NameServerConfig::udp(self.address.ip());
        server.connections = vec![connection];
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_name_servers(vec![server]);
        Names::new(&config, options, Handle::current())
    }

    fn questions(&self, kind: RecordType) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, asked)| *asked == kind).count()
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    let parse = |address: &&str| address.parse().unwrap();
    addresses.iter().map(parse).collect()
}

#[tokio::test]
async fn both_families_are_found_and_asked_for_once_while_they_are_good() {
    let server = NameServer::new(Says::At(
        &["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"],
        300,
    ));
    let names = server.names();
    let start = tokio::time::Instant::now();
    // On a busy machine one family may come a moment too late for the first who asks.
    while names.addresses("backend.example").await.unwrap().len() < 4 {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let found = names.addresses("backend.example").await.unwrap();
    assert!(found[0].is_ipv6() && found[1].is_ipv4() && found[2].is_ipv6());
    assert_eq!(server.questions(RecordType::A), 1);
    assert_eq!(server.questions(RecordType::AAAA), 1);
}

#[tokio::test]
async fn an_answer_that_is_good_for_no_time_is_asked_for_each_time() {
    let server = NameServer::new(Says::At(&["192.0.2.1"], 0));
    let names = server.names();
    for round in 1..=3 {
        let found = names.addresses("backend.example").await.unwrap();
        assert_eq!(found, parsed(&["192.0.2.1"]));
        assert_eq!(server.questions(RecordType::A), round);
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_again_once_its_time_is_over() {
    let server = NameServer::new(Says::At(&["192.0.2.1"], 1));
    let names = server.names();
    let start = tokio::time::Instant::now();
    while server.questions(RecordType::A) < 2 {
        names.addresses("backend.example").await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn texts_are_in_one_piece_each_and_asked_for_each_time() {
    let server = NameServer::answering(|query, answer| {
        for strings in [["m3o-", "domain"], ["other", ""]] {
            let data = RData::TXT(TXT::new(strings.map(str::to_owned).into()));
            answer.add_answer(Record::from_rdata(query.name().clone(), 3600, data));
        }
        true
    });
    let names = server.names();
    for round in 1..=3 {
        let texts = names.texts("_m3o-challenge.shop.example").await.unwrap();
        assert_eq!(texts, [&b"m3o-domain"[..], b"other"]);
        assert_eq!(server.questions(RecordType::TXT), round);
    }
    let missing = NameServer::new(Says::Missing).names();
    let error = missing.texts("_m3o-challenge.shop.example").await;
    assert!(matches!(error, Err(NoTexts::Lookup(_))), "{error:?}");
}

#[test]
fn a_name_server_is_an_address_and_perhaps_a_port() {
    let parse = |text: &str| super::NameServer::try_from(text.to_owned());
    for (text, shown) in [
        ("9.9.9.9", "9.9.9.9"),
        ("9.9.9.9:53", "9.9.9.9"),
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("2620:fe::fe", "2620:fe::fe"),
        ("[::1]:5353", "[::1]:5353"),
    ] {
        assert_eq!(String::from(parse(text).unwrap()), shown, "{text}");
    }
    for text in [
        "",
        "dns.example",
        "9.9.9.9:",
        "https://9.9.9.9",
        "9.9.9.9:70000",
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("is no address of a name server"), "{error}");
    }
}

#[tokio::test]
async fn name_servers_of_the_configuration_are_asked_in_place_of_the_systems() {
    let server = NameServer::new(Says::At(&["192.0.2.7"], 60));
    let names = Names::of_servers(&[server.address.into()], Handle::current());
    let found = names.addresses("backend.example").await.unwrap();
    assert_eq!(found, parsed(&["192.0.2.7"]));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_error() {
    let server = NameServer::new(Says::Missing);
    let error = server.names().addresses("gone.example").await.unwrap_err();
    let code = match *error {
        NetError::Dns(DnsError::NoRecordsFound(records)) => records.response_code,
        other => panic!("{other}"),
    };
    assert_eq!(code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_family_that_is_never_answered_for_holds_the_other_up_for_a_moment_only() {
    let server = NameServer::answering(|query, answer| {
        let v4 = RData::A(Ipv4Addr::new(192, 0, 2, 1).into());
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, v4));
        query.query_type() == RecordType::A
    });
    let found = server.names().addresses("backend.example").await.unwrap();
    assert_eq!(found, parsed(&["192.0.2.1"]));
}

#[tokio::test]
async fn ipv4_addresses_are_waited_for_however_early_ipv6_ones_are_there() {
    let late = RESOLUTION_DELAY * 4;
    let first_asked = Mutex::new(None);
    let server = NameServer::answering(move |query, answer| {
        let data = match query.query_type() {
            RecordType::AAAA => RData::AAAA("2001:db8::1".parse::<Ipv6Addr>().unwrap().into()),
            _ => RData::A(Ipv4Addr::new(192, 0, 2, 1).into()),
        };
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        // The question is asked again and again until it is answered.
        let now = tokio::time::Instant::now();
        let since = first_asked.lock().unwrap().get_or_insert(now).elapsed();
        query.query_type() == RecordType::AAAA || since >= late
    });
    let found = server.names().addresses("backend.example").await.unwrap();
    assert_eq!(found, parsed(&["2001:db8::1", "192.0.2.1"]));
}

#[test]
fn nothing_is_kept_for_longer_than_it_is_good_for_or_without_end() {
    let mut options = ResolverOpts::default();
    bound(&mut options);
    let cache = ResponseCache::new(8, TtlConfig::from_opts(&options));
    let query = Query::query("backend.example.".parse().unwrap(), RecordType::A);
    let now = tokio::time::Instant::now().into_std();
    let is_kept = |after| {
        cache
            .get(&query, now + Duration::from_secs(after))
            .is_some()
    };

    for (ttl, last) in [(0, 0), (1, 1), (300, 300), (u32::MAX, 3600)] {
        let mut answer = Message::response(0, OpCode::Query);
        let v4 = RData::A(Ipv4Addr::LOCALHOST.into());
        answer.add_answer(Record::from_rdata(query.name().clone(), ttl, v4));
        cache.insert(query.clone(), Ok(answer), now);
        assert!(!is_kept(last + 1), "{ttl}");
        // The cache looks at its own clock too, which has moved on.
        assert!(last == 0 || is_kept(last), "{ttl}");
    }
    for (ttl, last) in [(None, 1), (Some(0), 1), (Some(5), 5), (Some(u32::MAX), 10)] {
        let mut missing = NoRecords::new(query.clone(), ResponseCode::NXDomain);
        missing.negative_ttl = ttl;
        cache.insert(query.clone(), Err(missing.into()), now);
        assert!(is_kept(last) && !is_kept(last + 1), "{ttl:?}");
    }
}
