//! A name server that says what it is told to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

/// A name server on loopback. It ends with the test.
pub(crate) struct TestNames {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    asked: HashMap<String, usize>,
    closed: bool,
}

impl TestNames {
    /// One that knows no name.
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let served = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !served.lock().unwrap().closed {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let answer = served.lock().unwrap().answer(&buffer[..length]);
                    let _gone = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, zone }
    }

    /// `name` is at `address`, too.
    pub(crate) fn add_address(&self, name: &str, address: IpAddr) {
        let data = match address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        self.add(name, data);
    }

    /// `name` has this text, too.
    pub(crate) fn add_text(&self, name: &str, text: &str) {
        self.add(name, RData::TXT(TXT::new(vec![text.to_owned()])));
    }

    /// How often anything about `name` was asked.
    pub(crate) fn asked(&self, name: &str) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.asked.get(name).copied().unwrap_or_default()
    }

    fn add(&self, name: &str, data: RData) {
        let mut zone = self.zone.lock().unwrap();
        zone.records.entry(name.to_owned()).or_default().push(data);
    }
}

impl Zone {
    fn answer(&mut self, question: &[u8]) -> Vec<u8> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query.clone());
        let name = query.name().to_ascii();
        let name = name.trim_end_matches('.').to_owned();
        *self.asked.entry(name.clone()).or_default() += 1;
        let Some(records) = self.records.get(&name) else {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return answer.to_vec().unwrap();
        };
        let is_meant = |data: &&RData| {
            let kind: RecordType = data.record_type();
            kind == query.query_type()
        };
        for data in records.iter().filter(is_meant) {
            let record = Record::from_rdata(query.name().clone(), 3600, data.clone());
            answer.add_answer(record);
        }
        answer.to_vec().unwrap()
    }
}

impl Drop for TestNames {
    fn drop(&mut self) {
        self.zone.lock().unwrap().closed = true;
    }
}
