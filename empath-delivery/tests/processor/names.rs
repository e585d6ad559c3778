//! Names that are looked up in a zone in memory, and what changes of the zone do to mail.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use empath_common::Domain;
use empath_delivery::{
    Config,
    config::DomainConfig,
    resolve::lookup::{Answer, Exchange, Found, Lookup, LookupError, Mx, Question, RecordType, Records},
};
use empath_testkit::{
    peer::{Peer, Script},
    zone::{Told, Zone},
};

use crate::world::{World, routes};

/// A zone that answers without a server, and what it was asked. Of names with `slow` in them it answers after a second,
/// of those with `soon` after a twentieth.
pub(crate) struct Names {
    zone: Mutex<Zone>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Names {
    pub(crate) fn new(zone: &str) -> Arc<Self> {
        Arc::new(Self { zone: Mutex::new(Zone::parse(zone)), asked: Mutex::default() })
    }

    pub(crate) fn replace(&self, zone: &str) {
        *self.zone.lock().unwrap() = Zone::parse(zone);
    }

    /// How often it was asked this: `example.test MX`.
    pub(crate) fn asked(&self, question: &str) -> usize {
        self.asked.lock().unwrap().get(question).copied().unwrap_or(0)
    }
}

impl Lookup for Names {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let (name, kind) = (question.name.as_str(), question.kind.to_string());
        *self.asked.lock().unwrap().entry(format!("{name} {kind}")).or_default() += 1;
        let seconds = |ttl| Duration::from_secs(u64::from(ttl));
        let answer = match self.zone.lock().unwrap().look_up(name, &kind) {
            Told::Records(data, ttl) => Ok(Found { records: records(&question, &data), ttl: seconds(ttl) }),
            Told::NoSuchName(ttl) => Err(LookupError::NoSuchName(Some(seconds(ttl)))),
            Told::NoRecords(ttl) => Err(LookupError::NoRecords(Some(seconds(ttl)))),
            Told::Failed => Err(LookupError::Failed),
            Told::Refused => Err(LookupError::Refused),
            Told::Silence => return Box::pin(std::future::pending()),
        };
        let delay = match name {
            _ if name.contains("slow") => Duration::from_secs(1),
            _ if name.contains("soon") => Duration::from_millis(50),
            _ => return Box::pin(std::future::ready(answer)),
        };
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer
        })
    }
}

fn records(question: &Question, data: &[String]) -> Records {
    let mx = |line: &String| {
        let (preference, host) = line.split_once(' ').unwrap();
        let exchange = match host.trim_end_matches('.') {
            "" => Exchange::Root,
            name => Domain::parse_host(name).map_or(Exchange::Invalid, Exchange::Host),
        };
        Mx { preference: preference.parse().unwrap(), exchange }
    };
    match question.kind {
        RecordType::Mx => Records::mx(data.iter().map(mx).collect()),
        RecordType::A | RecordType::Aaaa => Records::addresses(data.iter().map(|ip| ip.parse().unwrap())),
    }
}

/// Hosts found by MX are at this peer's port.
fn towards(peer: &Peer) -> Config {
    Config { mx_port: peer.address().port(), ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn many_messages_for_one_domain_look_its_names_up_once() {
    let peer = Peer::start(Script::new()).await.unwrap();
    let names = Names::new("x.test. MX 10 mx.x.test.\nmx.x.test. A 127.0.0.1\n");
    let mut world = World::with_names(towards(&peer), &names);
    for _ in 0..100 {
        world.accept("alice@home.test", &["bob@x.test"]).await;
    }
    world.done().await;
    assert_eq!(peer.messages().len(), 100);
    let asked = ["x.test MX", "mx.x.test A", "mx.x.test AAAA"].map(|question| names.asked(question));
    assert_eq!(asked, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn mail_follows_the_zone_when_what_was_remembered_of_it_is_over() {
    let old = Peer::start(Script::new()).await.unwrap();
    let zone = |address| format!("x.test. 600 MX 10 mx.x.test.\nmx.x.test. 300 A {address}\n");
    let names = Names::new(&zone("127.0.0.1"));
    let mut config = towards(&old);
    config.connection_pool.idle_timeout = Duration::from_secs(1);
    let mut world = World::with_names(config, &names);
    world.accept("alice@home.test", &["bob@x.test"]).await;
    world.done().await;
    // Nobody is there.
    names.replace(&zone("127.0.0.77"));
    tokio::time::sleep(Duration::from_secs(200)).await;
    world.accept("alice@home.test", &["bob@x.test"]).await;
    world.done().await;
    assert_eq!(old.messages().len(), 2);
    tokio::time::sleep(Duration::from_secs(150)).await;
    let id = world.accept("alice@home.test", &["bob@x.test"]).await;
    world.rest().await;
    assert!(world.recipient(id).await.host.unwrap().contains("127.0.0.77"));
    assert_eq!((names.asked("x.test MX"), names.asked("mx.x.test A")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_the_dns_says_decides_for_each_recipient_and_the_others_are_delivered() {
    let (peer, home) = (Peer::start(Script::new()).await.unwrap(), Peer::start(Script::new()).await.unwrap());
    let names = Names::new(
        "mx.good.test. A 127.0.0.1
         good.test. MX 10 mx.good.test.
         alias.test. CNAME good.test.
         implicit.test. A 127.0.0.1
         second.test. MX 10 gone.good.test.
         second.test. MX 20 mx.good.test.
         null.test. MX 0 .
         both.test. MX 0 .
         both.test. MX 10 mx.good.test.
         nodata.test. TXT \"x\"
         servfail.test. SERVFAIL
         refused.test. REFUSED
         silent.test. TIMEOUT
         loop.test. CNAME loop.test.
         multicast.test. A 224.0.0.1",
    );
    let mut config = routes(&[("home.test", &home)]);
    config.mx_port = peer.address().port();
    let mut world = World::with_names(config, &names);
    let delivered = ["good", "alias", "implicit", "second", "both"];
    let bounced = [("null", "5.1.10"), ("gone", "5.1.2"), ("nodata", "5.4.4")];
    let deferred = [
        ("servfail", "4.4.3"),
        ("refused", "4.4.3"),
        ("silent", "4.4.3"),
        ("loop", "4.4.3"),
        ("multicast", "4.4.4"),
    ];
    let all = delivered.iter().chain(bounced.iter().chain(&deferred).map(|(name, _)| name));
    let recipients: Vec<_> = all.map(|name| format!("bob@{name}.test")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    let id = world.accept("alice@home.test", &recipients).await;
    world.rest().await;
    assert_eq!(peer.messages().len(), delivered.len());
    let view = world.view(id).await.unwrap();
    let mut reports = home
        .messages()
        .into_iter()
        .map(|message| String::from_utf8(message.content).unwrap())
        .collect::<String>();
    reports.make_ascii_lowercase();
    for (name, status) in bounced.iter().chain(&deferred) {
        let recipient = view.recipients.iter().find(|r| r.address == format!("bob@{name}.test")).unwrap();
        let reply = recipient.last_reply.as_ref().unwrap();
        assert_eq!(reply.enhanced.as_deref(), Some(*status), "{name}");
        assert_eq!(reports.contains(&format!("bob@{name}.test")), status.starts_with('5'), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bare_postmaster_gets_his_mail_where_a_local_domain_is_delivered() {
    let hub = Peer::start(Script::new()).await.unwrap();
    let names = Names::new("");
    let mut world = World::with_names(routes(&[("local.test", &hub)]), &names);
    world.accept("alice@home.test", &["Postmaster"]).await;
    world.done().await;
    assert_eq!(hub.messages()[0].to, ["Postmaster"]);

    let directory = tempfile::tempdir().unwrap();
    let maildir = Some(directory.path().join("{domain}/{local}"));
    let mut config = Config::default();
    config.domains.insert("local.test".parse().unwrap(), DomainConfig { maildir, ..DomainConfig::default() });
    let mut world = World::with_names(config, &names);
    world.accept("alice@home.test", &["Postmaster"]).await;
    world.done().await;
    let new = directory.path().join("local.test/postmaster/new");
    assert_eq!(std::fs::read_dir(new).unwrap().count(), 1);
}
