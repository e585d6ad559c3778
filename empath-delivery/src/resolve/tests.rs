mod virtual_time;

use std::{collections::HashSet, time::Duration};

use empath_testkit::zone::{Zone, ZoneServer};
use tokio::net::{TcpListener, UdpSocket};

use super::{lookup::MAX_HOSTS, *};

const ZONE: &str = "
    two.test.          MX 20 mx2.two.test.
    two.test.          MX 10 MX1.two.test.
    two.test.          MX 30 mx1.two.test.
    mx1.two.test.      A 192.0.2.1
    mx1.two.test.      A 192.0.2.2
    mx1.two.test.      AAAA 2001:db8::1
    mx2.two.test.      A 192.0.2.3
    plain.test.        A 192.0.2.4
    plain6.test.       AAAA 2001:db8::4
    bare.test.         TXT \"nothing else\"
    null.test.         MX 0 .
    mixed.test.        MX 0 .
    mixed.test.        MX 10 mx1.two.test.
    odd.test.          MX 0 no-host-.test.
    address.test.      MX 0 192.0.2.7.
    alias.test.        CNAME two.test.
    alias2.test.       CNAME plain.test.
    gone.test.         CNAME nowhere.test.
    loop.test.         CNAME loop2.test.
    loop2.test.        CNAME loop.test.
    broken.test.       SERVFAIL
    closed.test.       REFUSED
    slow.test.         TIMEOUT
    half.test.         AAAA SERVFAIL
    half.test.         A 192.0.2.5
    half2.test.        AAAA SERVFAIL
    half3.test.        AAAA TIMEOUT
    half3.test.        A 192.0.2.6
    special.test.      A 0.0.0.0
    special.test.      A 255.255.255.255
    special.test.      AAAA ff02::1
    private.test.      A 10.0.0.1
    private.test.      A 192.0.2.8
    *.wild.test.       MX 10 mx1.two.test.
";

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

async fn start(config: DnsConfig) -> (ZoneServer, Resolver) {
    let server = ZoneServer::start(Zone::parse(ZONE)).await;
    let resolver = Resolver::new(&DnsConfig { servers: vec![server.address()], ..config }).unwrap();
    (server, resolver)
}

/// Hosts as `preference name`, or the error.
async fn mx(resolver: &Resolver, name: &str) -> Result<Vec<String>, ResolveError> {
    let hosts = resolver.mx(&domain(name)).await?;
    Ok(hosts.into_iter().map(|host| format!("{} {}", host.preference, host.name)).collect())
}

async fn addresses(resolver: &Resolver, name: &str) -> Result<Vec<String>, ResolveError> {
    let addresses = resolver.addresses(&domain(name)).await?;
    Ok(addresses.into_iter().map(|address| address.to_string()).collect())
}

#[tokio::test]
async fn mx_hosts_come_by_preference_and_each_once() {
    let (_server, resolver) = start(DnsConfig::default()).await;
    for (name, hosts) in [
        ("two.test", vec!["10 mx1.two.test", "20 mx2.two.test"]),
        ("alias.test", vec!["10 mx1.two.test", "20 mx2.two.test"]),
        ("any.wild.test", vec!["10 mx1.two.test"]),
        // RFC 7505 §3: a null MX that is not alone means nothing.
        ("mixed.test", vec!["10 mx1.two.test"]),
        // Without MX, the domain itself.
        ("plain.test", vec!["0 plain.test"]),
        ("plain6.test", vec!["0 plain6.test"]),
        ("alias2.test", vec!["0 alias2.test"]),
        ("bare.test", vec!["0 bare.test"]),
        ("localhost", vec!["0 localhost"]),
    ] {
        assert_eq!(
            mx(&resolver, name).await.as_deref(),
            Ok(&*hosts.into_iter().map(String::from).collect::<Vec<_>>())
        );
    }
}

#[tokio::test]
async fn no_mx_and_no_answer_are_told_apart() {
    let config = DnsConfig { timeout: Duration::from_millis(100), attempts: 1, ..DnsConfig::default() };
    let (_server, resolver) = start(config).await;
    for (name, error, permanent) in [
        ("null.test", ResolveError::NullMx as fn(Domain) -> ResolveError, true),
        ("nowhere.test", ResolveError::NoSuchDomain, true),
        ("gone.test", ResolveError::NoSuchDomain, true),
        ("odd.test", ResolveError::NoHost, false),
        ("broken.test", ResolveError::ServerFailure, false),
        ("closed.test", ResolveError::Refused, false),
        ("slow.test", ResolveError::Timeout, false),
    ] {
        let error = error(domain(name));
        assert_eq!(error.is_permanent(), permanent, "{name}");
        assert_eq!(mx(&resolver, name).await, Err(error));
    }
    assert!(mx(&resolver, "loop.test").await.is_err_and(|error| !error.is_permanent()));
}

#[tokio::test]
async fn a_null_mx_is_not_looked_up_further() {
    let (server, resolver) = start(DnsConfig::default()).await;
    assert_eq!(mx(&resolver, "null.test").await, Err(ResolveError::NullMx(domain("null.test"))));
    assert_eq!((server.queries("null.test", "MX"), server.queries("null.test", "A")), (1, 0));
}

#[tokio::test]
async fn addresses_of_both_families_come_in_turn_and_one_family_is_enough() {
    let config = DnsConfig { timeout: Duration::from_millis(300), attempts: 1, ..DnsConfig::default() };
    let (_server, resolver) = start(config).await;
    let found = addresses(&resolver, "mx1.two.test").await.unwrap();
    assert_eq!(found[0], "2001:db8::1");
    assert_eq!(
        found[1..].iter().map(String::as_str).collect::<HashSet<_>>(),
        HashSet::from(["192.0.2.1", "192.0.2.2"])
    );
    for (name, expected) in [
        ("plain.test", "192.0.2.4"),
        ("plain6.test", "2001:db8::4"),
        ("alias2.test", "192.0.2.4"),
        ("half.test", "192.0.2.5"),
        ("half3.test", "192.0.2.6"),
    ] {
        assert_eq!(addresses(&resolver, name).await, Ok(vec![expected.to_owned()]), "{name}");
    }
    assert_eq!(addresses(&resolver, "localhost").await, Ok(vec!["::1".to_owned(), "127.0.0.1".to_owned()]));
}

#[tokio::test]
async fn no_address_and_no_answer_are_told_apart() {
    let config = DnsConfig { timeout: Duration::from_millis(100), attempts: 1, ..DnsConfig::default() };
    let (_server, resolver) = start(config).await;
    for (name, error) in [
        ("bare.test", ResolveError::NoAddress as fn(Domain) -> ResolveError),
        ("nowhere.test", ResolveError::NoSuchDomain),
        // An address as text is no address.
        ("192.0.2.7", ResolveError::NoSuchDomain),
        ("special.test", ResolveError::Unusable),
        ("broken.test", ResolveError::ServerFailure),
        // No A, and who knows about AAAA.
        ("half2.test", ResolveError::ServerFailure),
        ("slow.test", ResolveError::Timeout),
    ] {
        assert_eq!(addresses(&resolver, name).await, Err(error(domain(name))));
    }
}

#[tokio::test]
async fn private_addresses_are_contacted_unless_they_are_refused() {
    let (_server, resolver) = start(DnsConfig::default()).await;
    assert_eq!(addresses(&resolver, "private.test").await.map(|all| all.len()), Ok(2));
    let refuse = DnsConfig { private_addresses: PrivateAddresses::Refuse, ..DnsConfig::default() };
    let (_server, resolver) = start(refuse).await;
    assert_eq!(addresses(&resolver, "private.test").await, Ok(vec!["192.0.2.8".to_owned()]));
}

#[tokio::test]
async fn hosts_and_addresses_are_bounded() {
    let zone: Vec<_> = (0..60)
        .flat_map(|i| [format!("big.test. MX {i} mx{i}.big.test."), format!("many.test. A 192.0.2.{i}")])
        .collect();
    let server = ZoneServer::start(Zone::parse(&zone.join("\n"))).await;
    let config = DnsConfig { servers: vec![server.address()], ..DnsConfig::default() };
    let resolver = Resolver::new(&config).unwrap();
    let hosts = resolver.mx(&domain("big.test")).await.unwrap();
    assert_eq!((hosts.len(), hosts[MAX_HOSTS - 1].preference), (MAX_HOSTS, 31));
    assert_eq!(resolver.addresses(&domain("many.test")).await.unwrap().len(), MAX_ADDRESSES);
}

#[tokio::test]
async fn answers_are_remembered_as_long_as_configured() {
    async fn asked(config: DnsConfig) -> usize {
        let server = ZoneServer::start(Zone::parse("x.test. 0 MX 10 mx.x.test.")).await;
        let resolver = Resolver::new(&DnsConfig { servers: vec![server.address()], ..config }).unwrap();
        for _ in 0..2 {
            resolver.mx(&domain("x.test")).await.unwrap();
        }
        server.queries("x.test", "MX")
    }
    assert_eq!(asked(DnsConfig::default()).await, 1);
    assert_eq!(asked(DnsConfig { min_ttl: Duration::ZERO, ..DnsConfig::default() }).await, 2);
    assert_eq!(asked(DnsConfig { cache_size: 0, ..DnsConfig::default() }).await, 2);
    let short = DnsConfig { min_ttl: Duration::ZERO, max_ttl: Duration::ZERO, ..DnsConfig::default() };
    let (server, resolver) = start(short).await;
    for _ in 0..2 {
        mx(&resolver, "two.test").await.unwrap();
        mx(&resolver, "nowhere.test").await.unwrap_err();
    }
    assert_eq!((server.queries("two.test", "MX"), server.queries("nowhere.test", "MX")), (2, 2));
}

#[tokio::test]
async fn a_name_server_that_fails_is_asked_as_often_as_configured() {
    for attempts in [1, 3] {
        let (server, resolver) = start(DnsConfig { attempts, ..DnsConfig::default() }).await;
        mx(&resolver, "broken.test").await.unwrap_err();
        assert_eq!(server.queries("broken.test", "MX"), attempts);
    }
}

#[tokio::test]
async fn a_name_server_that_only_fails_does_not_speak_for_the_others() {
    let good = ZoneServer::start(Zone::parse(ZONE)).await;
    for broken in ["SERVFAIL", "REFUSED"] {
        let broken = ZoneServer::start(Zone::parse(&format!("test. {broken}\n*.test. {broken}"))).await;
        let servers = vec![broken.address(), good.address()];
        let resolver = Resolver::new(&DnsConfig { servers, ..DnsConfig::default() }).unwrap();
        for _ in 0..10 {
            mx(&resolver, "two.test").await.unwrap();
            let gone = ResolveError::NoSuchDomain(domain("nowhere.test"));
            assert_eq!(mx(&resolver, "nowhere.test").await, Err(gone));
            resolver.forget(None);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_only_there_in_part_is_no_answer() {
    // "The rest over TCP", where nobody listens, or somebody who says nothing.
    for listens in [false, true] {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = if listens { Some(TcpListener::bind(address).await.unwrap()) } else { None };
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut query).await {
                // A response, truncated.
                query[2] = 0x83;
                udp.send_to(&query[..length], client).await.unwrap();
            }
        });
        let config = DnsConfig { timeout: Duration::from_millis(300), attempts: 1, ..DnsConfig::default() };
        let resolver = Resolver::new(&DnsConfig { servers: vec![address], ..config }).unwrap();
        let error = if listens { ResolveError::Timeout } else { ResolveError::ServerFailure };
        assert_eq!(mx(&resolver, "x.test").await, Err(error(domain("x.test"))), "{listens}");
        drop(tcp);
    }
}

#[tokio::test]
async fn an_answer_of_hundreds_of_hosts_is_read_over_tcp_and_cut() {
    let zone: Vec<_> = (0..800).map(|i| format!("big.test. MX {} mx{i}.big.test.", 1000 - i)).collect();
    let server = ZoneServer::start(Zone::parse(&zone.join("\n"))).await;
    let config = DnsConfig { servers: vec![server.address()], ..DnsConfig::default() };
    let hosts = mx(&Resolver::new(&config).unwrap(), "big.test").await.unwrap();
    assert_eq!((hosts.len(), hosts[0].as_str()), (MAX_HOSTS, "201 mx799.big.test"));
}

#[test]
fn hosts_of_equal_preference_are_shuffled_among_themselves() {
    let host = |preference, name| MxHost { preference, name: domain(name) };
    let hosts = [host(10, "a.test"), host(10, "b.test"), host(20, "c.test"), host(20, "d.test")];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut orders = HashSet::new();
    for _ in 0..100 {
        let mut shuffled = hosts.clone();
        shuffle_equals(&mut shuffled, &mut rng);
        assert!(shuffled.is_sorted_by_key(|host| host.preference));
        orders.insert(shuffled.map(|host| host.name.to_string()));
    }
    assert_eq!(orders.len(), 4);
}
