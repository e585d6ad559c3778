//! A scenario is played: a processor over the network and the DNS of the file.

use std::{sync::Arc, time::Duration};

use empath_common::{Clock, MessageId};
use empath_delivery::{Metrics, Parts, Processor, Resolver, Settings};
use empath_metrics::Registry;
use empath_spool::{Content, Entry, MemorySpool, Spool as _};
use empath_testkit::{clock::VirtualClock, spool::HookedSpool};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    events::{Event, Record, shown},
    expect::Said,
    file::{Read, Scenario, Step, Wrong},
    message::Message,
    network::{Dns, Network, Wires},
};

/// Nothing takes longer.
const MONTH: Duration = Duration::from_hours(31 * 24);
/// How often it is looked whether everything is over.
const PAUSE: Duration = Duration::from_mins(1);

/// Lines of a host's transcript that are shown.
const MOST_SHOWN: usize = 100;

/// What has come of a scenario.
pub(crate) struct Seen {
    pub(crate) events: Vec<Event>,
    pub(crate) hosts: Vec<SeenHost>,
    pub(crate) dns: Arc<Dns>,
    /// What is wrong in every scenario.
    pub(crate) wrong: Vec<String>,
}

pub(crate) struct SeenHost {
    pub(crate) name: String,
    pub(crate) connections: usize,
    pub(crate) messages: usize,
    pub(crate) dials: usize,
    /// The addresses that they came from, if the client chose them.
    pub(crate) from: String,
    pub(crate) left: Option<Duration>,
    transcript: String,
    /// Of all messages, one below the other.
    content: String,
}

impl SeenHost {
    /// What clients told it, line by line.
    pub(crate) fn lines(&self, said: Said) -> Vec<&str> {
        match said {
            Said::Commands => {
                self.transcript.lines().filter_map(|line| Some(line.split_once(" C: ")?.1)).collect()
            }
            Said::Content => self.content.lines().collect(),
        }
    }
}

impl Seen {
    pub(crate) fn shown(&self) -> String {
        let mut lines: Vec<_> = self.events.iter().map(ToString::to_string).collect();
        for host in &self.hosts {
            let SeenHost { name, connections, messages, dials, from, left, transcript, .. } = host;
            let left = left.map_or("never".into(), shown);
            lines.push(format!(
                "{name} connections={connections} messages={messages} dials={dials} left={left} from={from}"
            ));
            lines.extend(transcript.lines().take(MOST_SHOWN).map(|line| format!("    {line}")));
        }
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}

pub(crate) async fn play(scenario: &Scenario) -> Read<Seen> {
    let start = Instant::now();
    let record = Record::new(start);
    let logging = tracing::subscriber::set_default(record.clone());
    let spool = Arc::new(HookedSpool { memory: MemorySpool::default(), hooks: record.clone() });
    let (network, dns) = (Arc::new(Network::new(&scenario.hosts, start)), Arc::new(Dns::default()));
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::start());
    let registry = Registry::default();
    let settings = Settings {
        delivery: scenario.config.clone(),
        dsn: scenario.dsn.clone(),
        hostname: "relay.test".parse().unwrap(),
        own_names: Vec::new(),
        own_addresses: vec!["192.0.2.1:25".parse().unwrap()],
        content_memory: 1 << 20,
    };
    let parts = Parts {
        spool: Arc::clone(&spool) as _,
        resolver: Arc::new(Resolver::over(Arc::clone(&dns) as _, &scenario.config.dns, &registry)),
        dial: Arc::new(Wires(Arc::clone(&network))),
        tls: scenario.config.tls().map_err(|problem| Wrong(1, problem.to_string()))?,
        clock: Arc::clone(&clock),
        metrics: Metrics::new(&registry),
        rng: fastrand::Rng::with_seed(1),
    };
    let processor = Processor::start(settings, parts);
    let mut accepted = 0;
    for (at, step) in &scenario.steps {
        sleep_until(start + *at).await;
        match step {
            Step::Zone(zone) => dns.replace(zone.clone()),
            Step::Host(host, behaviour) => network.behave(*host, behaviour),
            Step::Message(message) => {
                accepted += 1;
                let id = MessageId::from_bytes([accepted; 16]);
                accept(&processor, &spool.memory, id, message, &*clock).await;
            }
        }
    }
    let is_over = || processor.queue_len() == 0 && spool.is_empty() && processor.connections() == 0;
    let mut wrong = Vec::new();
    if let Some(end) = scenario.expected.end {
        sleep_until(start + end).await;
    } else {
        while !is_over() && start.elapsed() < MONTH {
            sleep(PAUSE).await;
        }
        if !is_over() {
            wrong.push("it did not end within a month".into());
        }
    }
    let quiet_home = scenario.is_home_quiet().then_some("home.test");
    let events = record.events(quiet_home);
    processor.shutdown(Duration::ZERO).await;
    drop(logging);
    let mut hosts = Vec::new();
    for (place, (name, _)) in scenario.hosts.all().iter().enumerate() {
        network.with(place, |host| {
            wrong.extend(host.peer.violations().into_iter().map(|what| format!("{name}: {what}")));
            let content: Vec<_> = host.peer.messages().into_iter().map(|message| message.content).collect();
            hosts.push(SeenHost {
                name: name.clone(),
                connections: host.peer.connections(),
                messages: host.peer.messages().len(),
                dials: host.dials,
                from: host.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
                left: host.left,
                transcript: host.peer.transcript(),
                content: String::from_utf8_lossy(&content.concat()).into_owned(),
            });
        });
    }
    Ok(Seen { events, hosts, dns, wrong })
}

/// As the daemon does: stored first.
async fn accept(
    processor: &Processor,
    spool: &MemorySpool,
    id: MessageId,
    message: &Message,
    clock: &dyn Clock,
) {
    let mut envelope = message.envelope.clone();
    envelope.received_at = clock.now();
    let (envelope, content) = (Arc::new(envelope), Content::from(message.content.clone()));
    let entry = Entry::Accepted { id, envelope: Arc::clone(&envelope), content: content.clone() };
    spool.commit(entry.into()).await.unwrap();
    processor.accepted(id, envelope, &content);
}
