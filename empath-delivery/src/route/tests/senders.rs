use super::*;
use crate::config::{SenderRoute, Source};

fn to(host: &str) -> SenderRoute {
    SenderRoute { mx_override: Some(host.parse().unwrap()), ..SenderRoute::default() }
}

fn config(senders: &[(&str, SenderRoute)], domains: &[(&str, DomainConfig)]) -> Config {
    let mut config = Config { mx_port: 2025, ..Config::default() };
    config.sender_routes =
        senders.iter().map(|(pattern, to)| (pattern.parse().unwrap(), to.clone())).collect();
    config.domains =
        domains.iter().map(|(pattern, domain)| (pattern.parse().unwrap(), domain.clone())).collect();
    config
}

fn made(config: &Config) -> Routes {
    Routes::new(config, "mx.home.test".parse().unwrap())
}

fn route(routes: &Routes, sender: &str, path: &str) -> Route {
    let path: ForwardPath = path.parse().unwrap();
    routes.route_to(mail(routes.sender_class(&sender.parse().unwrap())), path.host())
}

fn shown(routes: &Routes, sender: &str, path: &str) -> String {
    route(routes, sender, path).next_hop.to_string()
}

#[test]
fn the_most_exact_match_of_a_sender_alone_applies() {
    let senders = [
        ("news@a.test", to("news.test")),
        ("u@[192.0.2.9]", to("literal.test")),
        ("a.test", to("a.relay.test:26")),
        ("*.a.test", to("below.test")),
        ("*.b.a.test", to("further.test")),
        ("<>", to("reports.test")),
    ];
    let routes = made(&config(&senders, &[]));
    let table = [
        ("<news@a.test>", "smtp:news.test:2025"),
        // RFC 5321 §2.4: a domain is the same in any case, a local part is not.
        ("<news@A.TEST>", "smtp:news.test:2025"),
        ("<News@a.test>", "smtp:a.relay.test:26"),
        // RFC 5321 §4.1.2: quotes that are not needed mean nothing.
        ("<\"news\"@a.test>", "smtp:news.test:2025"),
        ("<\"ne\\ws\"@a.test>", "smtp:news.test:2025"),
        ("<\"News\"@a.test>", "smtp:a.relay.test:26"),
        ("<u@a.test>", "smtp:a.relay.test:26"),
        ("<news@b.a.test>", "smtp:below.test:2025"),
        ("<u@c.b.a.test>", "smtp:further.test:2025"),
        ("<u@d.c.b.a.test>", "smtp:further.test:2025"),
        ("<u@xa.test>", "mx:x.test"),
        ("<u@test>", "mx:x.test"),
        ("<u@[192.0.2.9]>", "smtp:literal.test:2025"),
        ("<v@[192.0.2.9]>", "mx:x.test"),
        ("<>", "smtp:reports.test:2025"),
    ];
    for (sender, next_hop) in table {
        assert_eq!(shown(&routes, sender, "<u@x.test>"), next_hop, "{sender}");
    }
    let none = made(&config(&[], &[]));
    assert_eq!(shown(&none, "<>", "<u@x.test>"), "mx:x.test");
}

#[test]
fn a_way_is_a_smarthost_a_host_or_lmtp_on_the_terms_of_the_sender() {
    let smarthost = Smarthost {
        hosts: vec!["relay.test".parse().unwrap()],
        auth: Some(SmarthostAuth {
            user: "u".into(),
            password_file: Some("/secret".into()),
            token_file: None,
        }),
    };
    let senders = [
        (
            "a.test",
            SenderRoute { smarthost: Some(smarthost), max_connections: Some(3), ..SenderRoute::default() },
        ),
        ("b.test", SenderRoute { require_tls: true, ..to("192.0.2.1") }),
        ("c.test", SenderRoute { lmtp: Some("unix:/run/lmtp".parse().unwrap()), ..SenderRoute::default() }),
    ];
    let routes = made(&config(&senders, &[]));
    let a = route(&routes, "<u@a.test>", "<u@x.test>");
    assert_eq!((a.next_hop.to_string().as_str(), a.max_connections), ("smarthost:relay.test:587", 3));
    let NextHop::Smarthost(_, terms) = a.next_hop else { panic!() };
    assert!(terms.tls == TlsPolicy::Required && terms.verified && terms.credentials.is_some());
    let NextHop::Host { terms, .. } = route(&routes, "<u@b.test>", "<u@x.test>").next_hop else { panic!() };
    // The host serves anybody: its certificate is for its own address.
    assert!(terms.tls == TlsPolicy::Required && terms.verified && terms.name.is_none());
    assert_eq!(shown(&routes, "<u@c.test>", "<u@x.test>"), "lmtp:unix:/run/lmtp");
}

#[test]
fn what_is_said_of_the_recipient_counts_more_than_the_sender_but_for_all_mail() {
    let domain = DomainConfig::default;
    let maildir = || DomainConfig { maildir: Some("/m/{address}".into()), ..domain() };
    let lmtp = || DomainConfig { lmtp: Some("127.0.0.1:24".parse().unwrap()), ..domain() };
    let senders = [("a.test", to("own.test"))];
    let named = [
        ("maildir.test", maildir()),
        ("lmtp.test", lmtp()),
        ("override.test", over("hub.test")),
        ("*.below.test", over("hub.test")),
        ("limited.test", DomainConfig { rate_limit: Some(9), max_connections: Some(1), ..domain() }),
    ];
    let local: Domain = "local.test".parse().unwrap();
    let mut routes = made(&config(&senders, &named)).with_local(std::slice::from_ref(&local));
    let table = [
        ("<u@maildir.test>", "maildir"),
        ("<u@lmtp.test>", "lmtp:127.0.0.1:24"),
        ("<u@override.test>", "smtp:hub.test:2025"),
        ("<u@x.below.test>", "smtp:hub.test:2025"),
        ("<u@limited.test>", "smtp:own.test:2025"),
        ("<u@x.test>", "smtp:own.test:2025"),
        ("<u@[192.0.2.9]>", "smtp:own.test:2025"),
        // Mail for this host stays here, or goes where the configuration says of it.
        ("<u@local.test>", "mx:local.test"),
        ("<Postmaster>", "mx:mx.home.test"),
    ];
    for (path, next_hop) in table {
        assert_eq!(shown(&routes, "<u@a.test>", path), next_hop, "{path}");
    }
    // How much may go to a domain does not depend on the way; connections are counted at the way's end.
    let limited = route(&routes, "<u@a.test>", "<u@limited.test>");
    assert_eq!(limited.limit.map(|limit| limit.domain.to_string()).as_deref(), Some("limited.test"));
    assert_eq!(limited.max_connections, 5);
    routes.set_override("x.test".parse().unwrap(), "now.test".parse().unwrap()).unwrap();
    assert_eq!(shown(&routes, "<u@a.test>", "<u@x.test>"), "smtp:now.test:2025");

    for (any, next_hop, literal) in [
        (over("any.test"), "smtp:own.test:2025", "smtp:own.test:2025"),
        (maildir(), "maildir", "maildir"),
        (lmtp(), "lmtp:127.0.0.1:24", "lmtp:127.0.0.1:24"),
    ] {
        let routes = made(&config(&senders, &[("*", any)])).with_local(std::slice::from_ref(&local));
        assert_eq!(shown(&routes, "<u@a.test>", "<u@x.test>"), next_hop);
        assert_eq!(shown(&routes, "<u@a.test>", "<u@[192.0.2.9]>"), literal);
        assert_ne!(shown(&routes, "<u@a.test>", "<u@local.test>"), "smtp:own.test:2025");
    }
}

#[test]
fn a_domain_that_requires_tls_requires_it_on_the_way_of_a_sender_too() {
    let strict = DomainConfig { require_tls: true, ..DomainConfig::default() };
    let clear = SenderRoute { tls: Some(TlsPolicy::Disabled), ..to("own.test") };
    let terms = |domains: &[(&str, DomainConfig)]| {
        let routes = made(&config(&[("a.test", clear.clone())], domains));
        match route(&routes, "<u@a.test>", "<u@x.test>").next_hop {
            NextHop::Host { terms, .. } => (terms.tls, terms.verified),
            other => panic!("{other}"),
        }
    };
    assert_eq!(terms(&[]), (TlsPolicy::Disabled, false));
    assert_eq!(terms(&[("x.test", strict.clone())]), (TlsPolicy::Required, true));
    // What is said of all mail is a default, and the sender is more exact.
    assert_eq!(terms(&[("*", strict)]), (TlsPolicy::Disabled, false));
}

#[test]
fn a_class_means_the_same_sender_after_a_change_of_the_configuration() {
    let class = |routes: &Routes, sender: &str| routes.sender_class(&sender.parse().unwrap());
    let before = made(&config(&[("a.test", to("one.test")), ("b.test", to("two.test"))], &[]));
    let [a, b] = ["<u@a.test>", "<u@b.test>"].map(|sender| class(&before, sender));
    let changed = [("0.test", to("zero.test")), ("b.test", to("three.test")), ("c.test", to("four.test"))];
    let mut after = made(&config(&changed, &[]));
    after.keep_classes_of(&before);
    let host = Host::Domain("x.test".parse().unwrap());
    let shown = |routes: &Routes, class| routes.route_to(mail(class), Some(&host)).next_hop.to_string();
    assert_eq!(class(&after, "<u@b.test>"), b);
    assert_eq!(shown(&after, b), "smtp:three.test:2025");
    // It has no route any more, and never somebody else's.
    assert_eq!(shown(&after, a), "mx:x.test");
    assert_eq!(class(&after, "<u@a.test>"), SenderClass::default());
    for sender in ["<u@0.test>", "<u@c.test>"] {
        assert!(![a, b, SenderClass::default()].contains(&class(&after, sender)), "{sender}");
    }
    let mut back = made(&config(&[("a.test", to("one.test"))], &[]));
    back.keep_classes_of(&after);
    assert!(class(&back, "<u@a.test>") > class(&after, "<u@c.test>"), "a number is given away once");
}

/// The same with a pool of these last octets for each name.
fn with_pools(mut config: Config, pools: &[(&str, &[u8])]) -> Config {
    let source = |last: &u8| Source { ipv4: Some([192, 0, 2, *last].into()), ..Source::default() };
    for (name, sources) in pools {
        config.sources.insert((*name).to_owned(), sources.iter().map(source).collect());
    }
    config
}

/// A next hop and the address that it is reached from.
fn with_source(next_hop: &NextHop) -> String {
    match next_hop.terms().and_then(|terms| terms.source.as_ref()) {
        Some(source) => format!("{next_hop} from {source}"),
        None => next_hop.to_string(),
    }
}

#[test]
fn a_source_alone_says_where_mail_comes_from_and_not_where_it_goes() {
    let from = |pool: &str, route: SenderRoute| SenderRoute { source: Some(pool.to_owned()), ..route };
    let senders = [
        ("news.test", from("bulk", SenderRoute::default())),
        ("both.test", from("bulk", to("relay.test"))),
        ("relay.test", to("relay.test")),
    ];
    let pooled = |domain: DomainConfig| DomainConfig { source: Some("own".to_owned()), ..domain };
    let maildir = DomainConfig { maildir: Some("/m/{address}".into()), ..DomainConfig::default() };
    let domains = [
        ("pooled.test", pooled(DomainConfig::default())),
        ("hub.test", pooled(over("hub.test"))),
        ("maildir.test", maildir),
    ];
    let pools: [(&str, &[u8]); 2] = [("bulk", &[7]), ("own", &[9])];
    let mut routes = made(&with_pools(config(&senders, &domains), &pools));
    routes.set_override("override.test".parse().unwrap(), "now.test".parse().unwrap()).unwrap();
    let table = [
        ("<u@news.test>", "<u@x.test>", "mx:x.test from 192.0.2.7"),
        ("<u@home.test>", "<u@x.test>", "mx:x.test"),
        ("<u@news.test>", "<u@pooled.test>", "mx:pooled.test from 192.0.2.7"),
        ("<u@home.test>", "<u@pooled.test>", "mx:pooled.test from 192.0.2.9"),
        ("<u@news.test>", "<u@hub.test>", "smtp:hub.test:2025 from 192.0.2.7"),
        ("<u@home.test>", "<u@hub.test>", "smtp:hub.test:2025 from 192.0.2.9"),
        ("<u@news.test>", "<u@override.test>", "smtp:now.test:2025 from 192.0.2.7"),
        ("<u@news.test>", "<u@[192.0.2.1]>", "smtp:192.0.2.1:2025 from 192.0.2.7"),
        ("<u@news.test>", "<u@maildir.test>", "maildir"),
        ("<u@both.test>", "<u@pooled.test>", "smtp:relay.test:2025 from 192.0.2.7"),
        ("<u@both.test>", "<u@hub.test>", "smtp:hub.test:2025 from 192.0.2.7"),
        ("<u@relay.test>", "<u@pooled.test>", "smtp:relay.test:2025 from 192.0.2.9"),
    ];
    for (sender, path, expected) in table {
        assert_eq!(with_source(&route(&routes, sender, path).next_hop), expected, "{sender} {path}");
    }
}

#[test]
fn the_next_hops_of_a_domain_are_those_of_every_sender_from_every_source() {
    let bulk = SenderRoute { source: Some("bulk".to_owned()), ..SenderRoute::default() };
    let pooled = DomainConfig { source: Some("own".to_owned()), ..DomainConfig::default() };
    let config = config(&[("news.test", bulk), ("relay.test", to("relay.test"))], &[("pooled.test", pooled)]);
    let pools: [(&str, &[u8]); 2] = [("bulk", &[6, 7]), ("own", &[8, 9])];
    let routes = made(&with_pools(config, &pools));
    let next_hops = |name: &str| {
        let next_hops = routes.next_hops(Some(&Host::Domain(name.parse().unwrap())));
        let mut shown: Vec<_> = next_hops.iter().map(with_source).collect();
        shown.sort_unstable();
        shown
    };
    let pooled = [
        "mx:pooled.test from 192.0.2.6",
        "mx:pooled.test from 192.0.2.7",
        "mx:pooled.test from 192.0.2.8",
        "mx:pooled.test from 192.0.2.9",
        "smtp:relay.test:2025 from 192.0.2.8",
        "smtp:relay.test:2025 from 192.0.2.9",
    ];
    assert_eq!(next_hops("pooled.test"), pooled);
    let other = ["mx:x.test", "mx:x.test from 192.0.2.6", "mx:x.test from 192.0.2.7", "smtp:relay.test:2025"];
    assert_eq!(next_hops("x.test"), other);
}
