//! Dynamic updates of a zone (RFC 2136), signed with a key that both sides know (RFC 8945). Over TCP:
//! an answer that cannot be cut needs no second way.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record as Resource, RecordType, TSigner};
use hickory_proto::serialize::binary::DecodeError;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Action, Record};
use crate::acme::config::{Algorithm, Update};
use crate::credentials::Secret;

/// Why an update could never be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadUpdate {
    /// The zone is no name.
    #[error("tls.acme.dns.update.zone: `{0}` is no name")]
    Zone(String),
    /// The key's name is none.
    #[error("tls.acme.dns.update.key_name: `{0}` is no name")]
    KeyName(String),
    /// There is no key, or it is no base64.
    #[error("tls.acme.dns.update.key_env: the key is not there, or it is no base64")]
    Key,
}

/// Why a name server did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub(in crate::acme) enum UpdateError {
    /// There is no connection, or it broke.
    #[error("it cannot be spoken with: {0}")]
    Connection(#[from] io::Error),
    /// It took longer than `tls.acme.dns.update.wait`.
    #[error("it did not answer in time")]
    TimedOut,
    /// It refuses.
    #[error("it answered {code}{}", hint(*.code))]
    Refused {
        /// In its words.
        code: ResponseCode,
    },
    /// The signature of its answer is missing or wrong.
    #[error(
        "its answer is not signed with our key ({code}): check the key's name, its algorithm, its value, and the clocks"
    )]
    Unsigned {
        /// What the answer says, for what it is worth.
        code: ResponseCode,
    },
    /// What came is no answer to what was asked.
    #[error("its answer makes no sense: {0}")]
    Malformed(String),
    /// It knows no zone that the name is in.
    #[error("it has no zone that `{0}` is in: set tls.acme.dns.update.zone")]
    NoZone(String),
    /// The record was made, but is not shown.
    #[error("the record was made, but {0} does not show it in time")]
    Unseen(SocketAddr),
}

/// Makes and removes records at one name server.
pub(in crate::acme) struct Updater {
    server: SocketAddr,
    zone: Option<Name>,
    signer: TSigner,
    ttl: u32,
    watch: Vec<SocketAddr>,
    wait: Duration,
}

/// How far the clocks may be apart, in seconds, as RFC 8945, 10 advises.
const FUDGE: u16 = 300;

/// Between two looks for a record.
const PAUSE: Duration = Duration::from_millis(500);

/// One look takes no longer.
const LOOK: Duration = Duration::from_secs(5);

impl Updater {
    pub(super) fn new(config: &Update, key: &Secret) -> Result<Self, BadUpdate> {
        let absolute = |text: &str| {
            let mut name = Name::from_ascii(text).ok().filter(|name| !name.is_root())?;
            name.set_fqdn(true);
            Some(name)
        };
        let zone = match config.zone.as_str() {
            "" => None,
            zone => Some(absolute(zone).ok_or_else(|| BadUpdate::Zone(zone.to_owned()))?),
        };
        let key_name = absolute(&config.key_name)
            .ok_or_else(|| BadUpdate::KeyName(config.key_name.clone()))?;
        let key = BASE64_STANDARD
            .decode(key.expose())
            .map_err(|_| BadUpdate::Key)?;
        let algorithm = match config.algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(key, algorithm, key_name, FUDGE).map_err(|_| BadUpdate::Key)?;
        let watch = config
            .watch
            .iter()
            .map(|address| address.0)
            .collect::<Vec<_>>();
        Ok(Self {
            server: config.server.0,
            zone,
            signer,
            ttl: u32::try_from(config.ttl.as_secs()).unwrap_or(u32::MAX),
            watch: if watch.is_empty() {
                vec![config.server.0]
            } else {
                watch
            },
            wait: config.wait,
        })
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), UpdateError> {
        let within = |time| tokio::time::timeout(time, self.update(action, record));
        within(self.wait)
            .await
            .map_err(|_| UpdateError::TimedOut)??;
        if action == Action::Present {
            for server in &self.watch {
                tokio::time::timeout(self.wait, self.seen(*server, record))
                    .await
                    .map_err(|_| UpdateError::Unseen(*server))??;
            }
        }
        Ok(())
    }

    async fn update(&self, action: Action, record: &Record) -> Result<(), UpdateError> {
        let name = absolute(&record.name)?;
        let zone = match &self.zone {
            Some(zone) if zone.zone_of(&name) => zone.clone(),
            Some(_) => return Err(UpdateError::NoZone(record.name.clone())),
            None => self.find_zone(&name).await?,
        };
        let text = RData::TXT(TXT::new(vec![record.value.clone()]));
        let resource = Resource::from_rdata(name, self.ttl, text);
        let message = match action {
            Action::Present => update_message::append(resource.into(), zone, false, false),
            Action::Cleanup => update_message::delete_by_rdata(resource.into(), zone, false),
        };
        self.send_signed(message).await
    }

    /// Sends an update; done when a signed answer says so.
    async fn send_signed(&self, mut message: Message) -> Result<(), UpdateError> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let verifier = message.finalize(&self.signer, now).map_err(malformed)?;
        let bytes = ask(self.server, &message).await?;
        let answer = read_answer(&bytes, &message)?;
        let code = answer.metadata.response_code;
        // RFC 8945, 5.3: who does not know our key, or whose clock is wrong, cannot sign.
        let mut verifier = verifier.ok_or(UpdateError::Unsigned { code })?;
        verifier
            .verify(&bytes)
            .map_err(|_| UpdateError::Unsigned { code })?;
        match code {
            ResponseCode::NoError => Ok(()),
            code => Err(UpdateError::Refused { code }),
        }
    }

    /// The zone that `name` is in: the nearest parent of which the server has the SOA record.
    async fn find_zone(&self, name: &Name) -> Result<Name, UpdateError> {
        let mut candidate = name.base_name();
        while !candidate.is_root() {
            let answer = question(self.server, &candidate, RecordType::SOA).await?;
            let found = answer
                .answers
                .iter()
                .find(|record| record.record_type() == RecordType::SOA && record.name == candidate);
            if found.is_some() {
                return Ok(candidate);
            }
            candidate = candidate.base_name();
        }
        Err(UpdateError::NoZone(name.to_ascii()))
    }

    /// Waits until `server` shows the record.
    async fn seen(&self, server: SocketAddr, record: &Record) -> Result<(), UpdateError> {
        let name = absolute(&record.name)?;
        loop {
            let look = tokio::time::timeout(LOOK, question(server, &name, RecordType::TXT)).await;
            // A server that does not answer now may do so in a moment: the caller's patience ends this.
            if let Ok(Ok(answer)) = look
                && answer
                    .answers
                    .iter()
                    .any(|found| says(found, &record.value))
            {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Updater")
            .field("server", &self.server)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

fn says(record: &Resource, value: &str) -> bool {
    match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    }
}

fn absolute(name: &str) -> Result<Name, UpdateError> {
    let mut name = Name::from_ascii(name).map_err(malformed)?;
    name.set_fqdn(true);
    Ok(name)
}

async fn question(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Message, UpdateError> {
    let mut message = Message::query();
    let mut query = Query::query(name.clone(), kind);
    query.set_query_class(DNSClass::IN);
    message.add_query(query);
    let bytes = ask(server, &message).await?;
    read_answer(&bytes, &message)
}

/// Sends one message over TCP and reads one (RFC 1035, 4.2.2).
async fn ask(server: SocketAddr, message: &Message) -> Result<Vec<u8>, UpdateError> {
    let bytes = message.to_vec().map_err(malformed)?;
    let length = u16::try_from(bytes.len()).map_err(malformed)?;
    let mut stream = TcpStream::connect(server).await?;
    let framed = [&length.to_be_bytes()[..], &bytes].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn read_answer(bytes: &[u8], question: &Message) -> Result<Message, UpdateError> {
    let answer = Message::from_vec(bytes).map_err(|error: DecodeError| malformed(error))?;
    let fits = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == question.metadata.op_code;
    match fits {
        true => Ok(answer),
        false => Err(UpdateError::Malformed(
            "it answers another question".to_owned(),
        )),
    }
}

fn malformed(error: impl std::fmt::Display) -> UpdateError {
    UpdateError::Malformed(error.to_string())
}

impl From<ProtoError> for UpdateError {
    fn from(error: ProtoError) -> Self {
        malformed(error)
    }
}

fn hint(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::Refused => ": does the zone's policy let this key write TXT records?",
        ResponseCode::NotZone => ": the name is not in that zone",
        ResponseCode::NotAuth => ": it is no primary server of that zone, or does not know our key",
        _ => "",
    }
}
