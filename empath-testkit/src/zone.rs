//! The DNS server that every crate resolves with in its tests.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test whose zone can't be read or served fails by panicking"
)]

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hickory_proto::{
    op::{Message, MessageType, Metadata, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
};

/// Time to live of records that don't say theirs.
const DEFAULT_TTL: u32 = 300;
/// Most CNAMEs that an answer follows.
const MAX_CHAIN: usize = 16;

/// Names and what they answer.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    entries: BTreeMap<Name, Vec<Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// `None`: whatever is asked.
    kind: Option<RecordType>,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    Record(RData, u32),
    /// SERVFAIL or REFUSED.
    Failure(ResponseCode),
    /// Nothing at all.
    Silence,
}

/// What a [`Zone`] says to a question, CNAMEs followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Records, their data as it stands in a zone, and the shortest time to live among them in seconds.
    Records(Vec<String>, u32),
    /// The name doesn't exist, for so many seconds.
    NoSuchName(u32),
    /// It has no such records, for so many seconds.
    NoRecords(u32),
    /// SERVFAIL.
    Failed,
    /// REFUSED.
    Refused,
    /// Nothing at all.
    Silence,
}

impl Zone {
    /// Reads one record a line: `name [ttl] type data`. Everything behind `;` is a comment.
    ///
    /// Types are A, AAAA, MX, CNAME, TXT and PTR. `SERVFAIL`, `REFUSED` and `TIMEOUT` stand in place of the data, or
    /// of type and data: then they answer whatever is asked. `*.example.test.` answers for all names below it that have
    /// no record. A name that nothing is said about is NXDOMAIN; one that lacks the type asked for is NODATA.
    ///
    /// # Panics
    /// On a line that is none of this.
    pub fn parse(text: &str) -> Self {
        let mut zone = Self::default();
        for line in text.lines() {
            zone.add(line).unwrap_or_else(|| panic!("not a zone line: {line:?}"));
        }
        zone
    }

    /// Adds a line; `None` if it is none.
    pub fn add(&mut self, line: &str) -> Option<()> {
        let line = line.split(';').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let (name, entry) = entry(line)?;
            self.entries.entry(name).or_default().push(entry);
        }
        Some(())
    }

    /// What stands at `name`; `None` for a name that doesn't exist.
    fn at(&self, name: &Name) -> Option<&[Entry]> {
        if let Some(entries) = self.entries.get(name) {
            return Some(entries);
        }
        // A name with names below it exists without records (RFC 8020).
        if self.entries.keys().any(|below| name.zone_of(below)) {
            return Some(&[]);
        }
        let mut ancestor = name.base_name();
        while !ancestor.is_root() {
            let wildcard = ancestor.prepend_label("*").expect("a name with one more label");
            if let Some(entries) = self.entries.get(&wildcard) {
                return Some(entries);
            }
            ancestor = ancestor.base_name();
        }
        None
    }

    /// What it says about this type (`MX`) at this name: an answer without a server.
    ///
    /// # Panics
    /// If name or type are none.
    pub fn look_up(&self, name: &str, kind: &str) -> Told {
        let name = absolute(name).expect("a domain name").to_lowercase();
        let kind = RecordType::from_str(kind).expect("a record type");
        let mut query = Message::query();
        query.add_query(Query::query(name, kind));
        let Some(reply) = self.answer(&query) else { return Told::Silence };
        let data = reply.answers.iter().filter(|record| record.data.record_type() == kind);
        let data: Vec<_> = data.map(|record| record.data.to_string()).collect();
        let ttl = reply.answers.iter().map(|record| record.ttl).min().unwrap_or(DEFAULT_TTL);
        match reply.metadata.response_code {
            ResponseCode::NoError if data.is_empty() => Told::NoRecords(ttl),
            ResponseCode::NoError => Told::Records(data, ttl),
            ResponseCode::NXDomain => Told::NoSuchName(ttl),
            ResponseCode::Refused => Told::Refused,
            _ => Told::Failed,
        }
    }

    /// The answer, following CNAMEs as a recursive server does; `None` where the server keeps silent.
    fn answer(&self, query: &Message) -> Option<Message> {
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata = Metadata::response_from_request(&query.metadata);
        reply.metadata.recursion_available = true;
        reply.add_queries(query.queries.iter().cloned());
        let question = query.queries.first()?;
        let (mut name, kind) = (question.name.clone(), question.query_type);
        let mut aliases = 0;
        loop {
            let Some(entries) = self.at(&name) else {
                reply.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let mut target = None;
            let before = reply.answers.len();
            for entry in entries {
                let matches = entry.kind.is_none_or(|own| own == kind);
                match &entry.answer {
                    Answer::Record(data, ttl) if matches => {
                        reply.add_answer(Record::from_rdata(name.clone(), *ttl, data.clone()));
                    }
                    Answer::Record(data @ RData::CNAME(alias), ttl) => {
                        reply.add_answer(Record::from_rdata(name.clone(), *ttl, data.clone()));
                        target = Some(alias.0.clone());
                    }
                    Answer::Failure(code) if matches => {
                        reply.answers.clear();
                        reply.metadata.response_code = *code;
                        return Some(reply);
                    }
                    Answer::Silence if matches => return None,
                    Answer::Record(..) | Answer::Failure(_) | Answer::Silence => {}
                }
            }
            match target {
                // What recursive servers say to a loop.
                Some(_) if aliases == MAX_CHAIN => {
                    reply.answers.clear();
                    reply.metadata.response_code = ResponseCode::ServFail;
                    return Some(reply);
                }
                Some(alias) => {
                    aliases += 1;
                    name = alias;
                }
                None if reply.answers.len() > before => return Some(reply),
                None => break,
            }
        }
        // RFC 2308 §3: how long "no" may be remembered.
        let origin = name.trim_to(1);
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 3600, 600, 86_400, DEFAULT_TTL);
        reply.add_authority(Record::from_rdata(origin, DEFAULT_TTL, RData::SOA(soa)));
        Some(reply)
    }
}

fn entry(line: &str) -> Option<(Name, Entry)> {
    let mut words = line.split_whitespace().peekable();
    let mut name = Name::from_ascii(words.next()?).ok()?.to_lowercase();
    name.set_fqdn(true);
    let ttl = words.next_if(|word| word.bytes().all(|octet| octet.is_ascii_digit()));
    let ttl = ttl.map_or(Some(DEFAULT_TTL), |ttl| ttl.parse().ok())?;
    let mut word = words.next()?;
    let kind = match word {
        "SERVFAIL" | "REFUSED" | "TIMEOUT" => None,
        kind => {
            word = words.next()?;
            Some(RecordType::from_str(kind).ok()?)
        }
    };
    let answer = match (word, kind) {
        ("SERVFAIL", _) => Answer::Failure(ResponseCode::ServFail),
        ("REFUSED", _) => Answer::Failure(ResponseCode::Refused),
        ("TIMEOUT", _) => Answer::Silence,
        (data, Some(kind)) => Answer::Record(rdata(kind, data, words.next(), line)?, ttl),
        (_, None) => return None,
    };
    Some((name, Entry { kind, answer }))
}

fn rdata(kind: RecordType, first: &str, second: Option<&str>, line: &str) -> Option<RData> {
    Some(match kind {
        RecordType::A => RData::A(A(first.parse().ok()?)),
        RecordType::AAAA => RData::AAAA(AAAA(first.parse().ok()?)),
        RecordType::MX => RData::MX(MX::new(first.parse().ok()?, absolute(second?)?)),
        RecordType::CNAME => RData::CNAME(CNAME(absolute(first)?)),
        RecordType::PTR => RData::PTR(PTR(absolute(first)?)),
        // The text stands between quotes and may have spaces.
        RecordType::TXT => {
            RData::TXT(TXT::new(line.split('"').skip(1).step_by(2).map(String::from).collect()))
        }
        _ => return None,
    })
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Serves a [`Zone`] over UDP and TCP on a port of its own. Stops when it is dropped.
#[derive(Debug)]
pub struct ZoneServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Default)]
struct Shared {
    zone: Zone,
    queries: BTreeMap<(Name, RecordType), usize>,
}

impl ZoneServer {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is no port that is free for UDP and TCP both.
    pub async fn start(zone: Zone) -> Self {
        let shared = Arc::new(Mutex::new(Shared { zone, queries: BTreeMap::new() }));
        let (udp, tcp) = bind().await.expect("a port free for UDP and TCP");
        let address = udp.local_addr().expect("a bound socket has an address");
        let tasks =
            [tokio::spawn(serve_udp(udp, shared.clone())), tokio::spawn(serve_tcp(tcp, shared.clone()))];
        Self { address, shared, tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from this zone from now on.
    pub fn replace(&self, zone: Zone) {
        lock(&self.shared).zone = zone;
    }

    /// How often it was asked for this type (`MX`) at this name.
    ///
    /// # Panics
    /// If name or type are none.
    pub fn queries(&self, name: &str, kind: &str) -> usize {
        let name = absolute(name).expect("a domain name").to_lowercase();
        let kind = RecordType::from_str(kind).expect("a record type");
        lock(&self.shared).queries.get(&(name, kind)).copied().unwrap_or(0)
    }
}

impl Drop for ZoneServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = 0;
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if attempts == 20 => return Err(error),
            Err(_) => attempts += 1,
        }
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Mutex<Shared>>) {
    let mut datagram = vec![0; 4096];
    while let Ok((len, client)) = socket.recv_from(&mut datagram).await {
        let Some((query, reply)) = respond(datagram.get(..len).unwrap_or_default(), &shared) else {
            continue;
        };
        let encoded = reply.to_vec().unwrap_or_default();
        let fits = encoded.len() <= usize::from(query.max_payload());
        let encoded = if fits { encoded } else { reply.truncate().to_vec().unwrap_or_default() };
        // An error means that the client is gone.
        let _ = socket.send_to(&encoded, client).await;
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut clients = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        clients.spawn(serve_stream(stream, shared.clone()));
    }
}

/// Messages with their length before them (RFC 1035 §4.2.2), until the client leaves.
async fn serve_stream(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) -> io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some((_, reply)) = respond(&query, &shared) {
            let reply = reply.to_vec().unwrap_or_default();
            stream.write_u16(u16::try_from(reply.len()).unwrap_or(0)).await?;
            stream.write_all(&reply).await?;
        }
    }
}

fn respond(octets: &[u8], shared: &Mutex<Shared>) -> Option<(Message, Message)> {
    let query =
        Message::from_vec(octets).ok().filter(|query| query.metadata.message_type == MessageType::Query)?;
    let mut shared = lock(shared);
    let question = query.queries.first()?;
    *shared.queries.entry((question.name.to_lowercase(), question.query_type)).or_default() += 1;
    let reply = shared.zone.answer(&query)?;
    Some((query, reply))
}
