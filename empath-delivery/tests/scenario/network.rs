//! The network and the DNS of a scenario, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::{pending, ready},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use empath_common::Domain;
use empath_delivery::resolve::lookup::{
    Answer, Exchange, Found, Lookup, LookupError, Mx, Question, RecordType, Records,
};
use empath_smtp::client::{BoxStream, Dial, Dialing, Target};
use empath_testkit::{
    peer::{Peer, Script},
    zone::{Told, Zone},
};
use tokio::time::Instant;

use crate::host::{Behaviour, Names, Reach};

/// Octets that a connection holds in each direction.
const PIPE: usize = 16 * 1024;

/// The hosts of a scenario, reached over pipes.
pub(crate) struct Network {
    start: Instant,
    by_address: HashMap<IpAddr, usize>,
    /// Sockets by what they are shown as.
    by_path: HashMap<String, usize>,
    hosts: Mutex<Vec<Host>>,
}

pub(crate) struct Host {
    pub(crate) peer: Peer,
    reach: Reach,
    pub(crate) dials: usize,
    /// The addresses that they came from.
    pub(crate) from: BTreeSet<IpAddr>,
    /// When the last connection ended.
    pub(crate) left: Option<Duration>,
}

impl Network {
    pub(crate) fn new(names: &Names, start: Instant) -> Self {
        let all = names.all().iter().enumerate();
        let named = |(_, (name, _)): &(usize, &(String, Vec<IpAddr>))| name.parse::<IpAddr>().is_err();
        // A host that is called by its address has it, whatever the zone says.
        let (hosts, addresses): (Vec<_>, Vec<_>) = all.partition(named);
        let places = hosts.into_iter().chain(addresses);
        let by_address =
            places.flat_map(|(place, (_, ips))| ips.iter().map(move |ip| (*ip, place))).collect();
        let sockets = names.all().iter().enumerate().filter(|(_, (name, _))| name.starts_with("unix:"));
        let by_path = sockets.map(|(place, (name, _))| (name.clone(), place)).collect();
        let host = |_: &_| Host {
            peer: Peer::unlisted(Script::new()),
            reach: Reach::Serves,
            dials: 0,
            from: BTreeSet::new(),
            left: None,
        };
        Self { start, by_address, by_path, hosts: Mutex::new(names.all().iter().map(host).collect()) }
    }

    pub(crate) fn behave(&self, host: usize, behaviour: &Behaviour) {
        self.with(host, |host| {
            host.peer.follow(Arc::clone(&behaviour.script));
            host.reach = behaviour.reach;
        });
    }

    pub(crate) fn with<T>(&self, host: usize, with: impl FnOnce(&mut Host) -> T) -> T {
        with(&mut self.hosts.lock().unwrap()[host])
    }
}

/// The network as the client knows it.
pub(crate) struct Wires(pub(crate) Arc<Network>);

impl Dial for Wires {
    fn dial<'a>(&'a self, target: &'a Target, from: Option<IpAddr>) -> Dialing<'a> {
        let failed = |kind: io::ErrorKind| Box::pin(ready(Err(kind.into()))) as Dialing<'_>;
        let network = Arc::clone(&self.0);
        let place = match target {
            Target::Tcp(address) => network.by_address.get(&address.ip()),
            Target::Unix(_) => network.by_path.get(&target.to_string()),
        };
        let Some(place) = place.copied() else {
            return failed(io::ErrorKind::HostUnreachable);
        };
        let reach = network.with(place, |host| {
            host.dials += 1;
            host.from.extend(from);
            host.reach
        });
        match reach {
            Reach::Refuses => failed(io::ErrorKind::ConnectionRefused),
            Reach::Unreachable => failed(io::ErrorKind::HostUnreachable),
            Reach::Drops => Box::pin(pending()),
            Reach::Serves => {
                let (ours, theirs) = tokio::io::duplex(PIPE);
                let serving = network.with(place, |host| host.peer.serve(theirs));
                tokio::spawn(async move {
                    serving.await;
                    network.with(place, |host| host.left = Some(network.start.elapsed()));
                });
                Box::pin(ready(Ok(Box::new(ours) as BoxStream)))
            }
        }
    }
}

/// Answers from a zone.
#[derive(Default)]
pub(crate) struct Dns {
    zone: Mutex<Zone>,
    asked: Mutex<BTreeMap<(String, String), usize>>,
}

impl Dns {
    pub(crate) fn replace(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }

    /// How often it was asked for this type at this name.
    pub(crate) fn asked(&self, kind: &str, name: &str) -> usize {
        let question = (kind.to_owned(), name.to_owned());
        self.asked.lock().unwrap().get(&question).copied().unwrap_or_default()
    }

    fn told(&self, question: &Question) -> Told {
        let (name, kind) = (question.name.to_string(), question.kind.to_string());
        let told = self.zone.lock().unwrap().look_up(&name, &kind);
        *self.asked.lock().unwrap().entry((kind, name)).or_default() += 1;
        told
    }
}

impl Lookup for Dns {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let time = |seconds: u32| Duration::from_secs(seconds.into());
        let answer = match self.told(&question) {
            Told::Silence => return Box::pin(pending()),
            Told::Records(data, ttl) => {
                let records = if question.kind == RecordType::Mx {
                    Records::mx(data.iter().map(|data| mx(data)).collect())
                } else {
                    Records::addresses(data.iter().map(|data| data.parse().unwrap()))
                };
                Ok(Found { records, ttl: time(ttl) })
            }
            Told::NoSuchName(ttl) => Err(LookupError::NoSuchName(Some(time(ttl)))),
            Told::NoRecords(ttl) => Err(LookupError::NoRecords(Some(time(ttl)))),
            Told::Failed => Err(LookupError::Failed),
            Told::Refused => Err(LookupError::Refused),
        };
        Box::pin(ready(answer))
    }
}

/// `10 mx.example.test.`
fn mx(data: &str) -> Mx {
    let (preference, exchange) = data.split_once(' ').unwrap();
    let exchange = match exchange.trim_end_matches('.') {
        "" => Exchange::Root,
        name => Domain::parse_host(name).map_or(Exchange::Invalid, Exchange::Host),
    };
    Mx { preference: preference.parse().unwrap(), exchange }
}
