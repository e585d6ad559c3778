mod senders;

use empath_common::ForwardPath;

use super::*;
use crate::config::{Smarthost, SmarthostAuth};

/// Of a sender.
fn mail(sender: SenderClass) -> Mail {
    Mail { id: MessageId::from_bytes([1; 16]), sender }
}

fn route_of(routes: &Routes, path: &str) -> Route {
    routes.route_to(mail(SenderClass::default()), path.parse::<ForwardPath>().unwrap().host())
}

fn routes(domains: &[(&str, DomainConfig)]) -> Routes {
    let mut config = Config { mx_port: 2025, ..Config::default() };
    for (pattern, domain) in domains {
        config.domains.insert(pattern.parse().unwrap(), domain.clone());
    }
    Routes::new(&config, "mx.home.test".parse().unwrap())
}

fn over(host: &str) -> DomainConfig {
    DomainConfig { mx_override: Some(host.parse().unwrap()), ..DomainConfig::default() }
}

fn shown(routes: &Routes, path: &str) -> String {
    route_of(routes, path).next_hop.to_string()
}

#[test]
fn the_longest_match_alone_applies() {
    let routes = routes(&[
        ("*", over("any.test")),
        ("*.test", over("192.0.2.1:26")),
        ("*.b.test", over("[::1]:27")),
        ("a.b.test", over("exact.test:28")),
        ("plain.test", DomainConfig { max_connections: Some(9), ..DomainConfig::default() }),
    ]);
    let table = [
        ("<u@a.b.test>", "smtp:exact.test:28"),
        ("<u@A.B.TEST>", "smtp:exact.test:28"),
        ("<u@x.b.test>", "smtp:[::1]:27"),
        ("<u@y.x.b.test>", "smtp:[::1]:27"),
        ("<u@b.test>", "smtp:192.0.2.1:26"),
        ("<u@xb.test>", "smtp:192.0.2.1:26"),
        ("<u@test>", "smtp:any.test:2025"),
        ("<u@example.org>", "smtp:any.test:2025"),
        ("<u@[192.0.2.9]>", "smtp:any.test:2025"),
        // The exact key wins with all that it says, also with what it leaves out.
        ("<u@plain.test>", "mx:plain.test"),
    ];
    for (path, next_hop) in table {
        assert_eq!(shown(&routes, path), next_hop, "{path}");
    }
    assert_eq!(route_of(&routes, "<u@plain.test>").max_connections, 9);
    assert_eq!(route_of(&routes, "<u@other.test>").max_connections, 5);
}

#[test]
fn without_configuration_the_address_decides() {
    let routes = routes(&[]);
    assert_eq!(shown(&routes, "<u@example.test>"), "mx:example.test");
    assert_eq!(shown(&routes, "<u@[192.0.2.9]>"), "smtp:192.0.2.9:2025");
    assert_eq!(shown(&routes, "<u@[IPv6:2001:db8::1]>"), "smtp:[2001:db8::1]:2025");
    assert_eq!(shown(&routes, "<Postmaster>"), "mx:mx.home.test");
}

#[test]
fn the_bare_postmaster_is_a_local_recipient() {
    let maildir = || DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
    let local = ["one.test", "two.test"].map(|name| name.parse().unwrap());
    for (domains, next_hop, domain) in [
        (vec![("mx.home.test", maildir()), ("one.test", over("hub.test"))], "maildir", "mx.home.test"),
        (vec![("two.test", maildir())], "maildir", "two.test"),
        (vec![("one.test", over("hub.test")), ("two.test", maildir())], "smtp:hub.test:2025", "one.test"),
        (vec![("*", over("hub.test"))], "smtp:hub.test:2025", "mx.home.test"),
        (vec![("elsewhere.test", maildir())], "mx:mx.home.test", "mx.home.test"),
    ] {
        let routes = routes(&domains).with_local(&local);
        assert_eq!(shown(&routes, "<Postmaster>"), next_hop);
        assert_eq!(routes.postmaster_domain().as_str(), domain);
    }
}

#[test]
fn an_override_counts_more_than_the_configuration_and_is_for_one_domain_alone() {
    let limited = DomainConfig { max_connections: Some(9), ..over("192.0.2.1:26") };
    let mut routes = routes(&[("a.test", limited)]);
    let domain: Domain = "A.test".parse().unwrap();
    routes.set_override(domain.clone(), "hub.test".parse().unwrap()).unwrap();
    assert_eq!(shown(&routes, "<u@a.test>"), "smtp:hub.test:2025");
    assert_eq!(route_of(&routes, "<u@a.test>").max_connections, 9);
    assert_eq!(shown(&routes, "<u@b.a.test>"), "mx:b.a.test");
    assert_eq!(routes.remove_override(&domain).unwrap().to_string(), "hub.test");
    assert_eq!(routes.remove_override(&domain), None);
    assert_eq!(shown(&routes, "<u@a.test>"), "smtp:192.0.2.1:26");

    for i in 0..MAX_OVERRIDES {
        let name = format!("d{i}.test").parse().unwrap();
        routes.set_override(name, "hub.test".parse().unwrap()).unwrap();
    }
    let one_more = routes.set_override(domain, "hub.test".parse().unwrap());
    assert_eq!(one_more, Err(TooManyOverrides));
    let again = routes.set_override("d1.test".parse().unwrap(), "other.test".parse().unwrap());
    assert_eq!(again, Ok(()));
}

#[test]
fn the_limit_of_a_domain_takes_the_place_of_the_common_one() {
    let limited = DomainConfig { rate_limit: Some(60), rate_burst: Some(2), ..over("relay.test") };
    let burst = DomainConfig { rate_burst: Some(3), ..over("relay.test") };
    let mut config = Config::default();
    config.domains.insert("a.test".parse().unwrap(), limited);
    config.domains.insert("*.b.test".parse().unwrap(), burst);
    let limit = |config: &Config, path: &str| {
        let routes = Routes::new(config, "mx.home.test".parse().unwrap());
        let limit = route_of(&routes, path).limit?;
        Some((limit.domain.to_string(), limit.rate.interval.as_millis(), limit.rate.burst))
    };
    let named = |domain: &str, milliseconds, burst| Some((domain.to_owned(), milliseconds, burst));
    assert_eq!(limit(&config, "<u@a.test>"), named("a.test", 1000, 2));
    assert_eq!(limit(&config, "<u@c.test>"), None);
    config.rate_limits.per_domain_per_second = Some(4);
    assert_eq!(limit(&config, "<u@a.test>"), named("a.test", 1000, 2));
    // Each domain under a pattern has a limit of its own.
    assert_eq!(limit(&config, "<u@x.b.test>"), named("x.b.test", 250, 3));
    assert_eq!(limit(&config, "<u@c.test>"), named("c.test", 250, 10));
    assert_eq!(limit(&config, "<Postmaster>"), named("mx.home.test", 250, 10));
    assert_eq!(limit(&config, "<u@[192.0.2.1]>"), None);
}

#[test]
fn an_lmtp_server_is_a_next_hop_and_an_override_of_an_operator_speaks_smtp() {
    let lmtp = |server: &str| DomainConfig { lmtp: Some(server.parse().unwrap()), ..DomainConfig::default() };
    let safe = DomainConfig { require_tls: true, ..lmtp("192.0.2.1:24") };
    let mut routes = routes(&[
        ("a.test", lmtp("[::1]:24")),
        ("b.test", lmtp("unix:/run/lmtp")),
        ("c.test", lmtp("dovecot.test:2003")),
        ("safe.test", safe),
        ("same.test", over("[::1]:24")),
    ]);
    for (path, next_hop) in [
        ("<u@a.test>", "lmtp:[::1]:24"),
        ("<u@b.test>", "lmtp:unix:/run/lmtp"),
        ("<u@c.test>", "lmtp:dovecot.test:2003"),
    ] {
        assert_eq!(shown(&routes, path), next_hop);
    }
    let next_hop = |path: &str| route_of(&routes, path).next_hop;
    assert_ne!(next_hop("<u@a.test>"), next_hop("<u@same.test>"), "another protocol, another connection");
    let NextHop::Host { terms, .. } = next_hop("<u@safe.test>") else { panic!("no host") };
    assert_eq!(terms.name.as_ref().map(Domain::as_str), Some("safe.test"));
    routes.set_override("a.test".parse().unwrap(), "hub.test".parse().unwrap()).unwrap();
    assert_eq!(shown(&routes, "<u@a.test>"), "smtp:hub.test:2025");
}

#[test]
fn mail_for_two_domains_under_one_maildir_template_travels_together() {
    let maildir = DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
    let routes = routes(&[("*.test", maildir)]);
    let (a, b) = (route_of(&routes, "<u@a.test>"), route_of(&routes, "<u@b.test>"));
    assert_eq!(a, b);
    assert_eq!(a.next_hop.to_string(), "maildir");
}

#[test]
fn domains_with_other_terms_never_share_a_connection() {
    let to = || Some("127.0.0.1:25".parse().unwrap());
    let plain = DomainConfig { mx_override: to(), ..DomainConfig::default() };
    let routes = routes(&[
        ("a.test", plain.clone()),
        ("b.test", plain.clone()),
        ("never.test", DomainConfig { tls: Some(TlsPolicy::Disabled), ..plain.clone() }),
        ("always.test", DomainConfig { require_tls: true, ..plain.clone() }),
        ("too.test", DomainConfig { tls: Some(TlsPolicy::Required), ..plain.clone() }),
        ("any.test", DomainConfig { require_tls: true, accept_invalid_certs: Some(true), ..plain.clone() }),
        ("slow.test", DomainConfig { pipelining: false, ..plain.clone() }),
        ("whole.test", DomainConfig { chunking: false, ..plain }),
        ("named.test", DomainConfig { require_tls: true, ..over("mx.named.test") }),
    ]);
    let next_hop = |domain: &str| route_of(&routes, &format!("<u@{domain}>")).next_hop;
    assert_eq!(next_hop("a.test"), next_hop("b.test"));
    let others = ["a.test", "never.test", "always.test", "too.test", "any.test", "slow.test", "whole.test"];
    for one in others {
        for other in others.iter().filter(|other| **other != one) {
            assert_ne!(next_hop(one), next_hop(other), "{one} {other}");
        }
    }
    let expects = |domain| {
        let NextHop::Host { terms, .. } = next_hop(domain) else { panic!("no host") };
        (terms.verified, terms.name.as_ref().map(ToString::to_string))
    };
    assert_eq!(expects("a.test"), (false, None));
    assert_eq!(expects("always.test"), (true, Some("always.test".into())));
    assert_eq!(expects("any.test"), (false, None));
    assert_eq!(expects("named.test"), (true, None));
}

#[test]
fn a_smarthost_is_one_next_hop_for_all_its_domains_and_another_with_credentials() {
    let auth = |user: &str| SmarthostAuth {
        user: user.into(),
        password_file: Some("/secret".into()),
        token_file: None,
    };
    let to = |auth: Option<SmarthostAuth>| {
        let hosts = vec!["relay.test".parse().unwrap(), "192.0.2.1:2525".parse().unwrap()];
        DomainConfig { smarthost: Some(Smarthost { hosts, auth }), ..DomainConfig::default() }
    };
    let mut routes = routes(&[
        ("*", to(None)),
        ("a.test", to(Some(auth("alice")))),
        ("b.test", to(Some(auth("bob")))),
        ("*.c.test", to(Some(auth("alice")))),
    ]);
    let next_hop = |routes: &Routes, path: &str| route_of(routes, path).next_hop;
    let anybody = next_hop(&routes, "<u@x.test>");
    assert_eq!(anybody.to_string(), "smarthost:relay.test:587,192.0.2.1:2525");
    assert_eq!(anybody, next_hop(&routes, "<u@y.example>"));
    let (alice, bob) = (next_hop(&routes, "<u@a.test>"), next_hop(&routes, "<u@b.test>"));
    assert_eq!(alice, next_hop(&routes, "<u@x.c.test>"));
    assert!(alice != bob && alice != anybody && bob != anybody);
    let NextHop::Smarthost(_, terms) = alice else { panic!("no smarthost") };
    assert_eq!((terms.tls, terms.verified), (TlsPolicy::Required, true));

    // The host of an override is another one: it is not shown who we are.
    routes.set_override("a.test".parse().unwrap(), "hub.test".parse().unwrap()).unwrap();
    let NextHop::Host { terms, .. } = next_hop(&routes, "<u@a.test>") else { panic!("no host") };
    assert_eq!(terms.credentials, None);
}
