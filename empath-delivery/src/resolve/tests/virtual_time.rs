//! The resolver over answers made up here, without sockets: time is tokio's, and stands still unless all wait.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::resolve::lookup::{Mx, Records};

/// Answers by name and type, each after a while; what is not there is never answered.
#[derive(Default)]
struct Made {
    answers: Mutex<HashMap<(String, RecordType), (Duration, Answer)>>,
    asked: AtomicUsize,
    names: Mutex<HashMap<String, usize>>,
}

impl Made {
    fn say(&self, name: &str, kind: RecordType, after: u64, answer: Answer) {
        let answer = (Duration::from_millis(after), answer);
        self.answers.lock().unwrap().insert((name.to_owned(), kind), answer);
    }

    /// The same, but whoever asks later has it that much earlier.
    fn learn(self: &Arc<Self>, name: &str, kind: RecordType, after: u64, answer: Answer) {
        self.say(name, kind, u64::from(u32::MAX), answer.clone());
        let (made, name) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move {
            while made.asked_of(&name) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(after)).await;
            made.say(&name, kind, 0, answer);
        });
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn asked_of(&self, name: &str) -> usize {
        self.names.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

impl Lookup for Made {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Relaxed);
            *self.names.lock().unwrap().entry(question.name.to_string()).or_default() += 1;
            let key = (question.name.to_string(), question.kind);
            let answer = self.answers.lock().unwrap().get(&key).cloned();
            let Some((after, answer)) = answer else { return std::future::pending().await };
            sleep(after).await;
            answer
        })
    }
}

fn over(made: &Arc<Made>, config: &DnsConfig) -> Resolver {
    Resolver::over(Arc::clone(made) as Arc<dyn Lookup>, config, &Registry::default())
}

fn start() -> (Arc<Made>, Resolver) {
    let made = Arc::new(Made::default());
    let resolver = over(&made, &DnsConfig::default());
    (made, resolver)
}

#[expect(clippy::unnecessary_wraps, reason = "as the other answers of the tables are")]
fn ips(ttl: u64, addresses: &[&str]) -> Answer {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap());
    Ok(Found { records: Records::addresses(addresses), ttl: Duration::from_secs(ttl) })
}

#[expect(clippy::unnecessary_wraps, reason = "as the other answers of the tables are")]
fn one_mx(ttl: u64) -> Answer {
    Ok(Found { records: Records::mx(vec![Mx::host(10, "mx.x.test")]), ttl: Duration::from_secs(ttl) })
}

const NOTHING: Answer = Err(LookupError::NoRecords(None));

#[tokio::test(start_paused = true)]
async fn a_thousand_that_ask_at_once_make_one_query() {
    let (made, resolver) = start();
    made.say("x.test", RecordType::Mx, 20, one_mx(300));
    let mut asking = tokio::task::JoinSet::new();
    for spelling in ["x.test", "X.TEST"].repeat(500) {
        let resolver = resolver.clone();
        asking.spawn(async move { resolver.mx(&domain(spelling)).await });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|hosts| hosts.len() == 1)));
    assert_eq!((answers.len(), made.asked()), (1000, 1));
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_does_not_end_the_lookup_for_the_others() {
    let (made, resolver) = start();
    made.say("x.test", RecordType::Mx, 200, one_mx(300));
    timeout(Duration::from_millis(100), resolver.mx(&domain("x.test"))).await.unwrap_err();
    assert_eq!(mx(&resolver, "x.test").await, Ok(vec!["10 mx.x.test".to_owned()]));
    assert_eq!(made.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_their_time_within_the_bounds() {
    let forever = u64::from(u32::MAX);
    for (answer, seconds) in [
        (one_mx(300), 300),
        // `min_ttl` and `max_ttl` by default.
        (one_mx(0), 30),
        (one_mx(forever), 3600),
        (Err(LookupError::NoSuchName(Some(Duration::from_secs(90)))), 90),
        (Err(LookupError::NoRecords(Some(Duration::from_secs(90)))), 90),
        (NOTHING, 30),
        (Err(LookupError::Failed), 5),
        (Err(LookupError::Refused), 5),
        (Err(LookupError::Timeout), 5),
    ] {
        let (made, resolver) = start();
        made.say("x.test", RecordType::Mx, 0, answer.clone());
        // No answer is a reason to ask the name servers for what they know.
        let probes = usize::from(answer == Err(LookupError::Timeout));
        let first = resolver.mx(&domain("x.test")).await;
        advance(Duration::from_millis(seconds * 1000 - 100)).await;
        assert_eq!(resolver.mx(&domain("x.test")).await, first, "{answer:?}");
        assert_eq!((made.asked(), resolver.cache_len()), (1 + probes, 1), "{answer:?}");
        advance(Duration::from_millis(200)).await;
        assert_eq!(resolver.cache_len(), 0, "{answer:?}");
        assert_eq!(resolver.mx(&domain("x.test")).await, first, "{answer:?}");
        assert_eq!(made.asked(), 2 + probes, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_has_a_deadline_as_a_whole() {
    let (_made, resolver) = start();
    let started = Instant::now();
    assert_eq!(mx(&resolver, "x.test").await, Err(ResolveError::Timeout(domain("x.test"))));
    // `timeout` times `attempts`.
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn names_that_are_never_answered_hold_up_nobody_else() {
    let (made, resolver) = start();
    made.say("x.test", RecordType::Mx, 1, one_mx(300));
    for i in 0..3000 {
        resolver.prepare(&domain(&format!("tarpit{i}.test")));
    }
    let started = Instant::now();
    resolver.mx(&domain("x.test")).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_answer_takes_its_time_is_found_among_those_that_are_never_answered() {
    let (made, resolver) = start();
    for i in 0..1000 {
        resolver.prepare(&domain(&format!("tarpit{i}.test")));
    }
    sleep(Duration::from_millis(1)).await;
    // The name servers go on after we have gone, and know it when we come again.
    made.learn("x.test", RecordType::Mx, 700, one_mx(300));
    let started = Instant::now();
    resolver.mx(&domain("x.test")).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lookups_under_way_are_bounded() {
    let (made, resolver) = start();
    for i in 0..20_000 {
        resolver.prepare(&domain(&format!("tarpit{i}.test")));
    }
    assert_eq!(mx(&resolver, "x.test").await, Err(ResolveError::Busy(domain("x.test"))));
    sleep(Duration::from_secs(20)).await;
    made.say("x.test", RecordType::Mx, 1, one_mx(300));
    resolver.mx(&domain("x.test")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_family_does_not_hold_up_the_other() {
    for (slow, fast, address) in
        [(RecordType::Aaaa, RecordType::A, "192.0.2.1"), (RecordType::A, RecordType::Aaaa, "2001:db8::1")]
    {
        let (made, resolver) = start();
        made.say("x.test", fast, 5, ips(300, &[address]));
        let started = Instant::now();
        let first = resolver.first_addresses(&domain("x.test")).await.unwrap();
        assert_eq!((first.usable, first.complete), (vec![address.parse().unwrap()], false));
        assert!(started.elapsed() < Duration::from_millis(100), "{slow}");
        // The rest is still there for who wants it.
        made.say("y.test", fast, 5, ips(300, &[address]));
        made.say("y.test", slow, 300, ips(300, &["192.0.2.9"]));
        assert!(!resolver.first_addresses(&domain("y.test")).await.unwrap().complete);
        assert_eq!(resolver.addresses(&domain("y.test")).await.unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn families_that_answer_about_the_same_time_come_in_turn() {
    let (made, resolver) = start();
    made.say("x.test", RecordType::A, 5, ips(300, &["192.0.2.1", "192.0.2.1", "192.0.2.2"]));
    made.say("x.test", RecordType::Aaaa, 40, ips(300, &["2001:db8::1"]));
    let first = resolver.first_addresses(&domain("x.test")).await.unwrap();
    assert!(first.complete);
    let shown: Vec<_> = first.usable.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
}

#[tokio::test(start_paused = true)]
async fn families_are_contacted_as_configured() {
    use AddressFamily::{Ipv4, Ipv6};
    for (families, expected) in [
        (vec![Ipv6, Ipv4], ["2001:db8::1", "192.0.2.1", "192.0.2.2"].as_slice()),
        (vec![Ipv4, Ipv6], ["192.0.2.1", "2001:db8::1", "192.0.2.2"].as_slice()),
        (vec![Ipv4], ["192.0.2.1", "192.0.2.2"].as_slice()),
        (vec![Ipv6], ["2001:db8::1"].as_slice()),
    ] {
        let made = Arc::new(Made::default());
        made.say("x.test", RecordType::A, 0, ips(300, &["192.0.2.1", "192.0.2.2"]));
        made.say("x.test", RecordType::Aaaa, 0, ips(300, &["2001:db8::1"]));
        made.say("v6.test", RecordType::A, 0, NOTHING);
        made.say("v6.test", RecordType::Aaaa, 0, ips(300, &["2001:db8::1"]));
        let alone = families == [Ipv4];
        let resolver = over(&made, &DnsConfig { address_families: families, ..DnsConfig::default() });
        assert_eq!(addresses(&resolver, "x.test").await.unwrap(), expected);
        // Our own limit is no reason to bounce.
        let v6 = addresses(&resolver, "v6.test").await;
        let unusable = Err(ResolveError::Unusable(domain("v6.test")));
        assert_eq!(v6, if alone { unusable } else { Ok(vec!["2001:db8::1".to_owned()]) });
        assert_eq!(
            resolver.may_contact("::ffff:192.0.2.1".parse().unwrap()),
            resolver.may_contact("192.0.2.1".parse().unwrap())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_family_without_usable_addresses_is_not_enough() {
    let (made, resolver) = start();
    for (name, answer) in
        [("a.test", NOTHING), ("b.test", ips(300, &["ff02::1"])), ("c.test", Err(LookupError::Failed))]
    {
        made.say(name, RecordType::Aaaa, 1, answer);
        made.say(name, RecordType::A, 900, ips(300, &["192.0.2.1"]));
        let first = resolver.first_addresses(&domain(name)).await.unwrap();
        assert_eq!((first.usable.len(), first.complete), (1, true), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn some_names_are_known_without_asking() {
    let (made, resolver) = start();
    assert_eq!(addresses(&resolver, "a.localhost").await.unwrap(), ["::1", "127.0.0.1"]);
    assert_eq!(mx(&resolver, "localhost").await.unwrap(), ["0 localhost"]);
    for name in ["x.invalid", "x.onion"] {
        assert_eq!(mx(&resolver, name).await, Err(ResolveError::NoSuchDomain(domain(name))));
    }
    assert_eq!((made.asked(), resolver.cache_len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn name_servers_that_answer_nothing_are_told_from_a_domain_that_does_not() {
    let (made, resolver) = start();
    made.say("localhost", RecordType::A, 1, ips(1, &["127.0.0.1"]));
    for name in ["a.test", "b.test", "c.test", "d.test"] {
        mx(&resolver, name).await.unwrap_err();
        assert!(resolver.is_healthy(), "{name}");
    }
    sleep(Duration::from_mins(1)).await;
    assert!(resolver.is_healthy());

    let (made, resolver) = start();
    mx(&resolver, "a.test").await.unwrap_err();
    assert!(resolver.is_healthy());
    sleep(Duration::from_secs(11)).await;
    assert!(!resolver.is_healthy());
    // Nobody has to ask for something: it notices by itself.
    made.say("localhost", RecordType::A, 1, Err(LookupError::Refused));
    sleep(Duration::from_secs(20)).await;
    assert!(resolver.is_healthy());

    // Servers that answer everything but the question of the probe.
    let (made, resolver) = start();
    mx(&resolver, "a.test").await.unwrap_err();
    sleep(Duration::from_secs(30)).await;
    assert!(!resolver.is_healthy());
    made.say("x.test", RecordType::Mx, 1, one_mx(300));
    mx(&resolver, "x.test").await.unwrap();
    for _ in 0..60 {
        assert!(resolver.is_healthy());
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_seen_cleared_and_refreshed() {
    let (made, resolver) = start();
    made.say("x.test", RecordType::Mx, 0, one_mx(300));
    made.say("mx.x.test", RecordType::A, 0, ips(60, &["192.0.2.1"]));
    made.say("mx.x.test", RecordType::Aaaa, 0, NOTHING);
    made.say("z.test", RecordType::Mx, 0, Err(LookupError::NoSuchName(None)));
    resolver.mx(&domain("x.test")).await.unwrap();
    resolver.mx(&domain("x.test")).await.unwrap();
    resolver.addresses(&domain("mx.x.test")).await.unwrap();
    resolver.mx(&domain("z.test")).await.unwrap_err();
    let shown = |domain: Option<&str>| -> Vec<String> {
        let domain = domain.map(|name| name.parse().unwrap());
        let line = |r: Remembered| {
            let (records, error) = (r.records.join(","), r.error.unwrap_or("-"));
            format!("{} {} {records} {error} {} {}", r.name, r.kind, r.expires_in.as_secs(), r.hits)
        };
        resolver.cached(domain.as_ref()).into_iter().map(line).collect()
    };
    let x = ["mx.x.test A 192.0.2.1 - 60 0", "mx.x.test AAAA  nodata 30 0", "x.test MX 10 mx.x.test - 300 1"];
    assert_eq!(shown(Some("x.test")), x);
    assert_eq!(shown(None), [x.as_slice(), &["z.test MX  nxdomain 30 0"]].concat());

    made.say("mx.x.test", RecordType::A, 0, ips(60, &["192.0.2.2"]));
    let fresh = resolver.refresh(&domain("x.test")).await.unwrap();
    assert_eq!(fresh[0].1, Ok(vec!["192.0.2.2".parse().unwrap()]));
    assert_eq!(addresses(&resolver, "mx.x.test").await.unwrap(), ["192.0.2.2"]);

    assert_eq!(resolver.forget(Some(&domain("x.test"))), 3);
    assert_eq!(resolver.cache_len(), 1);
    assert_eq!(resolver.forget(None), 1);
    assert_eq!(resolver.forget(None), 0);
}
