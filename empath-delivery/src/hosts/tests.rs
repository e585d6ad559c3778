use std::{collections::HashMap, fmt::Write as _, pin::Pin, sync::Arc};

use empath_metrics::Registry;

use super::*;
use crate::resolve::{
    DnsConfig,
    lookup::{Answer, Found, Lookup, LookupError, Mx, Question, RecordType, Records},
};

fn terms() -> Arc<crate::route::Terms> {
    Arc::new(crate::route::Terms::of(&crate::Config::default(), None))
}

/// Preferences and names of MX records, and the hosts that are tried.
type Row<'a> = (&'a [(u16, &'a str)], Option<&'a [&'a str]>);

#[test]
fn an_mx_list_ends_where_it_comes_to_this_host() {
    let own = ["mx.home.test".parse().unwrap()];
    let table: [Row<'_>; 5] = [
        (&[(10, "a.test"), (20, "b.test")], Some(&["a.test", "b.test"])),
        (&[(10, "a.test"), (20, "mx.home.test"), (20, "b.test"), (30, "c.test")], Some(&["a.test"])),
        (&[(10, "mx.home.test"), (10, "a.test")], None),
        (&[(0, "mx.home.test")], None),
        (&[(10, "a.test"), (20, "MX.home.test")], Some(&["a.test"])),
    ];
    for (list, expected) in table {
        let host = |(preference, name): &(u16, &str)| MxHost {
            preference: *preference,
            name: name.parse().unwrap(),
        };
        let mut hosts: Vec<_> = list.iter().map(host).collect();
        let outcome = cut(&mut hosts, &own);
        let left: Vec<_> = hosts.iter().map(|mx| mx.name.as_str()).collect();
        match expected {
            Some(expected) => assert_eq!((outcome, left.as_slice()), (Ok(()), expected), "{list:?}"),
            None => assert_eq!(outcome, Err(Failure::loops_back()), "{list:?}"),
        }
    }
}

/// `name MX preference host`, `name A|AAAA address`; with `slow` they come after five seconds, with `never` never.
struct Lines(HashMap<Question, Vec<String>>);

impl Lines {
    fn resolver(text: &str, config: &DnsConfig) -> Resolver {
        let mut lines: HashMap<_, Vec<_>> = HashMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, rest) = line.split_once(' ').unwrap();
            let (kind, data) = rest.split_once(' ').unwrap();
            let kind = [RecordType::Mx, RecordType::A, RecordType::Aaaa]
                .into_iter()
                .find(|known| known.to_string() == kind)
                .unwrap();
            let question = Question { name: name.parse().unwrap(), kind };
            lines.entry(question).or_default().push(data.to_owned());
        }
        Resolver::over(Arc::new(Self(lines)), config, &Registry::default())
    }
}

impl Lookup for Lines {
    fn look_up(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let Some(lines) = self.0.get(&question) else { return Err(LookupError::NoRecords(None)) };
            let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
            if lines == ["never"] {
                return std::future::pending().await;
            }
            if lines[0] == "slow" {
                tokio::time::sleep(Duration::from_secs(5)).await;
                lines.remove(0);
            }
            let mx = |line: &str| {
                let (preference, host) = line.split_once(' ').unwrap();
                Mx::host(preference.parse().unwrap(), host)
            };
            let records = match question.kind {
                RecordType::Mx => Records::mx(lines.into_iter().map(mx).collect()),
                _ => Records::addresses(lines.into_iter().map(|ip| ip.parse().unwrap())),
            };
            Ok(Found { records, ttl: Duration::from_mins(5) })
        })
    }
}

/// What is tried for `x.test`, in order: addresses, and statuses of failures.
async fn tried(text: &str, own: &[&str]) -> Vec<String> {
    let resolver = Lines::resolver(text, &DnsConfig::default());
    let next_hop = NextHop::Mx("x.test".parse().unwrap(), terms());
    tried_of(&next_hop, &resolver, own).await
}

async fn tried_of(next_hop: &NextHop, resolver: &Resolver, own: &[&str]) -> Vec<String> {
    let own = Own {
        names: vec!["mx.home.test".parse().unwrap()],
        addresses: own.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut tried = Vec::new();
    match Hosts::of(next_hop, 25, resolver, &own, &mut rng).await {
        Err(failure) => tried.push(failure.status.to_string()),
        Ok(mut hosts) => {
            while let Some(next) = hosts.next().await {
                tried.push(match next {
                    Ok(Candidate { target: Target::Tcp(address), .. }) => address.ip().to_string(),
                    Ok(candidate) => candidate.target.to_string(),
                    Err(failure) => failure.status.to_string(),
                });
            }
        }
    }
    tried
}

const HOME: &[&str] = &["192.0.2.99:25"];

#[tokio::test(start_paused = true)]
async fn a_list_ends_where_one_of_several_equal_hosts_has_our_address() {
    let zone = "
        x.test MX 10 a.test
        x.test MX 20 b.test
        x.test MX 20 alias.home.test
        x.test MX 20 c.test
        x.test MX 30 d.test
        a.test A 192.0.2.1
        b.test A 192.0.2.2
        c.test A 192.0.2.3
        d.test A 192.0.2.4
        alias.home.test A 192.0.2.99
    ";
    assert_eq!(tried(zone, HOME).await, ["192.0.2.1"]);
    assert_eq!(tried(&zone.replace("MX 10 a.test", "MX 40 a.test"), HOME).await, ["5.4.6"]);
    // On another port it is somebody else.
    assert_eq!(tried(zone, &["192.0.2.99:2525"]).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_equal_host_that_cannot_be_looked_up_does_not_hold_up_the_others() {
    let zone = "
        x.test MX 10 a.test
        x.test MX 10 b.test
        a.test A 192.0.2.1
        b.test A never
        b.test AAAA never
    ";
    let own = Own { names: Vec::new(), addresses: vec![HOME[0].parse().unwrap()] };
    // Whatever the order of the two.
    for seed in 0..20 {
        let resolver = Lines::resolver(zone, &DnsConfig::default());
        let started = Instant::now();
        let mut rng = fastrand::Rng::with_seed(seed);
        let next_hop = NextHop::Mx("x.test".parse().unwrap(), terms());
        let mut hosts = Hosts::of(&next_hop, 25, &resolver, &own, &mut rng).await.unwrap();
        assert_eq!(hosts.next().await.unwrap().unwrap().target.to_string(), "192.0.2.1:25");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_that_come_late_are_tried_too_and_each_once() {
    let zone = "
        x.test MX 10 a.test
        x.test MX 20 b.test
        a.test AAAA slow
        a.test AAAA 2001:db8::1
        a.test A 192.0.2.1
        b.test A 192.0.2.1
        b.test A 192.0.2.2
    ";
    assert_eq!(tried(zone, HOME).await, ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    // Also when they are ours.
    assert_eq!(tried(zone, &["[2001:db8::1]:25"]).await, ["192.0.2.1"]);
    // Or never come.
    assert_eq!(
        tried(&zone.replace("slow", "never").replace("a.test AAAA 2001:db8::1\n", ""), HOME).await,
        ["192.0.2.1", "192.0.2.2"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_tries_a_bounded_number_of_addresses() {
    let mut zone = String::new();
    for host in 0..100 {
        writeln!(zone, "x.test MX {host} mx{host}.x.test").unwrap();
        for address in 0..100 {
            writeln!(zone, "mx{host}.x.test A 10.0.{host}.{address}").unwrap();
        }
    }
    let tried = tried(&zone, HOME).await;
    assert_eq!((tried.len(), tried[0].as_str()), (MAX_TRIED, "10.0.0.0"));
}

#[tokio::test(start_paused = true)]
async fn the_domain_itself_is_the_host_without_mx() {
    assert_eq!(
        tried("x.test AAAA 2001:db8::1\nx.test A 192.0.2.1", HOME).await,
        ["2001:db8::1", "192.0.2.1"]
    );
    assert_eq!(tried("x.test A 192.0.2.99", HOME).await, ["5.4.6"]);
    assert_eq!(tried("y.test A 192.0.2.99", HOME).await, ["5.4.4"]);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_strangers_name_are_refused_more_readily_than_those_of_the_configuration() {
    let config = DnsConfig { private_addresses: PrivateAddresses::Refuse, ..DnsConfig::default() };
    let resolver = Lines::resolver("", &config);
    for (address, configured, expected) in [
        ("127.0.0.1", false, "5.4.4"),
        ("127.0.0.1", true, "127.0.0.1"),
        ("10.0.0.1", true, "10.0.0.1"),
        ("0.0.0.0", true, "4.3.5"),
        ("224.0.0.1", false, "5.4.4"),
        // Ourselves: an address literal of a sender, and a mistake of ours.
        ("192.0.2.99", false, "5.4.6"),
        ("192.0.2.99", true, "4.3.5"),
    ] {
        let next_hop = NextHop::Host {
            host: HostAddr::Ip(address.parse().unwrap()),
            port: 25,
            configured,
            terms: terms(),
        };
        assert_eq!(tried_of(&next_hop, &resolver, HOME).await, [expected], "{address} {configured}");
    }
}
