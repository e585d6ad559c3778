//! Addresses that are right and wrong, as tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use empath_common::{
    AddressLiteral, Charset, Domain, DomainError, ForwardPath, Host, Mailbox, MailboxError, PathError,
    ReversePath,
};

fn mailbox(text: &str) -> Result<Mailbox, MailboxError> {
    Mailbox::parse(text.as_bytes(), Charset::Ascii)
}

#[test]
fn mailboxes_of_the_grammar_are_taken_as_written() {
    let rows = [
        // text, local part, host
        ("alice@example.test", "alice", "example.test"),
        ("SmITh@Dest.Example", "SmITh", "dest.example"),
        ("a@b", "a", "b"),
        ("!#$%&'*+-/=?^_`{|}~@a.test", "!#$%&'*+-/=?^_`{|}~", "a.test"),
        ("first.last+tag@a.test", "first.last+tag", "a.test"),
        ("user%relay.test@a.test", "user%relay.test", "a.test"),
        ("relay!user@a.test", "relay!user", "a.test"),
        (r#""with space"@a.test"#, r#""with space""#, "a.test"),
        (r#""quoted@at"@a.test"#, r#""quoted@at""#, "a.test"),
        (r#""u@evil.test>"@a.test"#, r#""u@evil.test>""#, "a.test"),
        (r#""a\"b\\c"@a.test"#, r#""a\"b\\c""#, "a.test"),
        (r#"""@a.test"#, r#""""#, "a.test"),
        (r#"".dots..anywhere."@a.test"#, r#"".dots..anywhere.""#, "a.test"),
        ("a@1.2.3.test", "a", "1.2.3.test"),
        ("a@xn--bcher-kva.test", "a", "xn--bcher-kva.test"),
        ("a@r3---sn.xn--p1ai", "a", "r3---sn.xn--p1ai"),
        ("a@[127.0.0.1]", "a", "[127.0.0.1]"),
        ("a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:db8::1]"),
        ("a@[ipv6:::1]", "a", "[IPv6:::1]"),
        ("a@[IPv6:::ffff:192.0.2.1]", "a", "[IPv6:::ffff:192.0.2.1]"),
    ];
    for (text, local, host) in rows {
        let parsed = mailbox(text).unwrap();
        assert_eq!((parsed.local_part(), parsed.host().to_string().as_str()), (local, host), "{text}");
        assert_eq!(parsed.to_string(), text);
        assert!(!parsed.needs_utf8());
    }
}

#[test]
fn a_local_part_means_the_same_whatever_needless_quotes_and_backslashes_it_has() {
    for (text, meant) in [
        ("bob", "bob"),
        (r#""bob""#, "bob"),
        (r#""b\ob""#, "bob"),
        (r#""\b\.\o""#, "b.o"),
        (r#""Bob""#, "Bob"),
        (r#""a/b""#, "a/b"),
        ("\"δοκ\"", "δοκ"),
        // These need their quotes.
        (r#""""#, r#""""#),
        (r#"".a""#, r#"".a""#),
        (r#""..""#, r#""..""#),
        (r#""../x""#, r#""../x""#),
        (r#""a b""#, r#""a b""#),
        (r#""a\ \b""#, r#""a b""#),
        (r#""a\@b""#, r#""a@b""#),
        (r#""a\"\\""#, r#""a\"\\""#),
        (r#""\"bob\"""#, r#""\"bob\"""#),
    ] {
        let address = format!("{text}@a.test");
        let written: Mailbox = address.parse().unwrap();
        assert_eq!(written.canonical_local_part(), meant, "{text}");
        let plain: Mailbox = format!("{meant}@A.test").parse().unwrap();
        assert_eq!(*written.canonical(), plain, "{text}");
        assert_eq!(*plain.canonical(), plain, "{text}");
        assert_eq!(written.to_string(), address, "it stays as it was written");
    }
    for (one, other) in
        [("bob", "Bob"), (r#""a b""#, "ab"), (r#""\"bob\"""#, "bob"), (r#""a\\b""#, r#""ab""#)]
    {
        let [one, other] = [one, other].map(|local| format!("{local}@a.test").parse::<Mailbox>().unwrap());
        assert_ne!(one.canonical(), other.canonical());
    }
}

#[test]
fn malformed_mailboxes_are_refused_with_their_reason() {
    use MailboxError::{Literal, LocalPart, NeedsUtf8, NoDomain, NotUtf8};
    let domain = MailboxError::Domain;
    let literal = Literal(empath_common::LiteralError);
    let flood = format!("a@[IPv6:{}]", "f".repeat(10_000));
    let rows: Vec<(&[u8], MailboxError)> = vec![
        (b"", NoDomain),
        (b"alice", NoDomain),
        (b"@", LocalPart),
        (b"@a.test", LocalPart),
        (b"a@", domain(DomainError::EmptyLabel)),
        (b"a@.", domain(DomainError::EmptyLabel)),
        (b"a@b.test.", domain(DomainError::EmptyLabel)),
        (b"a@.b.test", domain(DomainError::EmptyLabel)),
        (b"a@b..test", domain(DomainError::EmptyLabel)),
        (b"a@-b.test", domain(DomainError::Character)),
        (b"a@b-.test", domain(DomainError::Character)),
        (b"a@b_c.test", domain(DomainError::Character)),
        (b"a@b c.test", domain(DomainError::Character)),
        (b"a@b@c.test", domain(DomainError::Character)),
        (b"a@b.test\r\nRCPT", domain(DomainError::Character)),
        (b"a@b.test\0", domain(DomainError::Character)),
        (b"a@xn--\x7f.test", domain(DomainError::Idna)),
        (b"a@xn--a.test", domain(DomainError::Idna)),
        (b"a@xn--.test", domain(DomainError::Idna)),
        (b"a@xn--99999999.test", domain(DomainError::Idna)),
        (b".a@b.test", LocalPart),
        (b"a.@b.test", LocalPart),
        (b"a..b@b.test", LocalPart),
        (b"a b@b.test", LocalPart),
        (b"a\tb@b.test", LocalPart),
        (b"a\0b@b.test", LocalPart),
        (b"a\"b@b.test", LocalPart),
        (b"a<b@b.test", LocalPart),
        (b"(comment)a@b.test", LocalPart),
        (b"a,b@b.test", LocalPart),
        (b"a:b@b.test", LocalPart),
        (b"\"", LocalPart),
        (b"\"a@b.test", LocalPart),
        (b"\"a\\", LocalPart),
        (b"\"a\\\"@b.test", LocalPart),
        (b"\"a\nb\"@b.test", LocalPart),
        (b"\"a\\\nb\"@b.test", LocalPart),
        (b"\"a\x7f\"@b.test", LocalPart),
        (b"\"a\"b@b.test", NoDomain),
        (b"\"a\"", NoDomain),
        (b"a@[", literal.clone()),
        (b"a@[]", literal.clone()),
        (b"a@[127.0.0.1", literal.clone()),
        (b"a@[127.0.0.1]x", literal.clone()),
        (b"a@[127.0.0]", literal.clone()),
        (b"a@[127.0.0.256]", literal.clone()),
        (b"a@[999.1.1.1]", literal.clone()),
        (b"a@[::1]", literal.clone()),
        (b"a@[IPv6:]", literal.clone()),
        (b"a@[IPv6:1::2::3]", literal.clone()),
        (b"a@[IPv6:127.0.0.1]", literal.clone()),
        (b"a@[IPv6:fe80::1%eth0]", literal.clone()),
        (b"a@[tag:anything]", literal.clone()),
        (flood.as_bytes(), literal),
        (b"\xff@b.test", NotUtf8),
        (b"a@b\xc3.test", NotUtf8),
        ("δοκ@b.test".as_bytes(), NeedsUtf8),
        ("a@πρ.test".as_bytes(), NeedsUtf8),
    ];
    for (octets, reason) in rows {
        let shown = String::from_utf8_lossy(octets.get(..60).unwrap_or(octets));
        assert_eq!(Mailbox::parse(octets, Charset::Ascii), Err(reason), "{shown}");
    }
}

#[test]
fn smtputf8_takes_utf8_but_never_controls() {
    for text in ["δοκ@πρ.test", "用户@例え.test", "\"é @\"@b.test", "a@bücher.test"] {
        let parsed = Mailbox::parse(text.as_bytes(), Charset::Utf8).unwrap();
        assert_eq!(parsed.to_string(), text);
        assert!(parsed.needs_utf8(), "{text}");
    }
    for text in
        ["a\u{85}b@b.test", "\"a\u{9f}\"@b.test", "\"a\\é\"@b.test", "a@b\u{85}.test", "a@b\u{202e}.test"]
    {
        assert!(Mailbox::parse(text.as_bytes(), Charset::Utf8).is_err(), "{text:?}");
    }
}

#[test]
fn a_host_of_the_dns_may_have_underscores_and_nothing_else_that_no_name_has() {
    let host = |text: &str| Domain::parse_host(text).map(|name| name.to_string());
    for (text, name) in
        [("MX_1.b.test", "mx_1.b.test"), ("_mx.b.test", "_mx.b.test"), ("mx.b.test", "mx.b.test")]
    {
        assert_eq!(host(text).as_deref(), Ok(name));
    }
    for text in ["", "a_b..test", "-a_b.test", "a b_c.test", "a_\0.test", "é_b.test", &"_".repeat(64)] {
        assert!(host(text).is_err(), "{text:?}");
    }
}

#[test]
fn names_are_equal_when_their_a_labels_are() {
    let name = |text: &str| Domain::parse(text).unwrap();
    for (one, other) in [
        ("EXAMPLE.test", "example.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("BÜCHER.test", "XN--BCHER-KVA.test"),
        ("bu\u{308}cher.test", "bücher.test"),
        ("ｅｘａｍｐｌｅ。test", "example.test"),
    ] {
        assert_eq!(name(one), name(other), "{one}");
    }
    // Cyrillic letters that look like Latin ones; a letter that IDNA 2003 mapped and IDNA 2008 keeps.
    for (one, other) in
        [("раураӏ.test", "paypal.test"), ("ехаmрlе.test", "example.test"), ("faß.test", "fass.test")]
    {
        assert_ne!(name(one), name(other), "{one}");
    }
    assert_eq!(name("bücher.test").as_str(), "xn--bcher-kva.test");
}

#[test]
fn a_name_lies_below_its_ancestors_alone() {
    let below =
        |name: &str, ancestor: &str| Domain::parse(name).unwrap().is_below(&Domain::parse(ancestor).unwrap());
    assert!(below("a.b.test", "b.test") && below("a.b.test", "test"));
    assert!(!below("b.test", "b.test") && !below("ab.test", "b.test") && !below("test", "b.test"));
}

#[test]
fn two_mailboxes_differ_by_the_case_of_the_local_part_alone() {
    let parsed = |text: &str| text.parse::<Mailbox>().unwrap();
    assert_eq!(parsed("a@B.test"), parsed("a@b.TEST"));
    assert_eq!(parsed("a@bücher.test"), parsed("a@xn--bcher-kva.test"));
    assert_ne!(parsed("A@b.test"), parsed("a@b.test"));
    assert_ne!(parsed("a@[127.0.0.1]"), parsed("a@[127.0.0.2]"));
}

#[test]
fn sizes_up_to_the_limits_of_rfc_5321_are_taken_and_no_octet_more() {
    let label = "d".repeat(63);
    let longest = [&*label, &label, &label, &label].join(".");
    assert_eq!(longest.len(), Domain::MAX_LEN);
    assert!(Domain::parse(&longest).is_ok());
    assert_eq!(Domain::parse(&format!("a.{longest}")), Err(DomainError::TooLong));
    assert_eq!(Domain::parse(&format!("d{label}.test")), Err(DomainError::LabelTooLong));
    // The limit of a label holds for the A-label too: 90 characters here become more than 63 octets.
    assert!(Domain::parse(&format!("{}.test", "ü".repeat(50))).is_ok());
    assert_eq!(Domain::parse(&format!("{}.test", "éж".repeat(45))), Err(DomainError::Idna));

    let (local, quoted) = ("l".repeat(64), "l".repeat(62));
    assert!(mailbox(&format!("{local}@a.test")).is_ok());
    assert!(mailbox(&format!("\"{quoted}\"@a.test")).is_ok());
    assert_eq!(mailbox(&format!("l{local}@a.test")), Err(MailboxError::LocalPartTooLong));
    assert_eq!(mailbox(&format!("\"l{quoted}\"@a.test")), Err(MailboxError::LocalPartTooLong));

    let path = |octets: usize| format!("<{}@{}>", "l".repeat(64), &longest[..octets - 64 - 3]);
    assert_eq!(path(256).len(), 256);
    assert!(path(256).parse::<ForwardPath>().is_ok());
    assert!(path(256).parse::<ReversePath>().is_ok());
    assert_eq!(path(257).parse::<ForwardPath>(), Err(PathError::TooLong));
    assert_eq!(path(257).parse::<ReversePath>(), Err(PathError::TooLong));
}

#[test]
fn literals_parse_and_show_in_one_form() {
    assert_eq!("[192.0.2.1]".parse(), Ok(AddressLiteral(Ipv4Addr::new(192, 0, 2, 1).into())));
    assert_eq!("[IPV6:0:0:0:0:0:0:0:1]".parse(), Ok(AddressLiteral(Ipv6Addr::LOCALHOST.into())));
    assert_eq!(AddressLiteral(Ipv6Addr::LOCALHOST.into()).to_string(), "[IPv6:::1]");
    for wrong in ["", "192.0.2.1", "[192.0.2.01]", "[ 192.0.2.1]", "[é6:::1]", "[IPv6::1]"] {
        assert!(wrong.parse::<AddressLiteral>().is_err(), "{wrong}");
    }
}

#[test]
fn a_path_ends_at_the_first_bracket_that_is_not_quoted() {
    let rows: [(&str, &str, &str); 5] = [
        ("<a@b.test>", "a@b.test", ""),
        ("<a@b.test> SIZE=10", "a@b.test", " SIZE=10"),
        (r#"<"a>b"@c.test> X"#, r#""a>b"@c.test"#, " X"),
        (r#"<"a\">b"@c.test>"#, r#""a\">b"@c.test"#, ""),
        ("<a@b.test>>", "a@b.test", ">"),
    ];
    for (text, address, rest) in rows {
        let (path, left) = ForwardPath::parse_prefix(text.as_bytes(), Charset::Ascii).unwrap();
        assert_eq!((path.as_str(), left), (address, rest.as_bytes()), "{text}");
        let (path, left) = ReversePath::parse_prefix(text.as_bytes(), Charset::Ascii).unwrap();
        assert_eq!((path.as_str(), left), (address, rest.as_bytes()), "{text}");
    }
}

#[test]
fn source_routes_are_checked_and_ignored() {
    for (text, address) in [
        ("<@a.test:u@c.test>", "u@c.test"),
        ("<@a.test,@b.test:u@c.test>", "u@c.test"),
        (r#"<@a.test:"x:y@z"@c.test>"#, r#""x:y@z"@c.test"#),
    ] {
        let path: ForwardPath = text.parse().unwrap();
        assert_eq!(path.as_str(), address);
        assert_eq!(path.to_string(), format!("<{address}>"));
        assert_eq!(text.parse::<ReversePath>().unwrap().as_str(), address);
    }
    for text in [
        "<@>",
        "<@a.test>",
        "<@:u@c.test>",
        "<@a.test,:u@c.test>",
        "<@a.test,b.test:u@c.test>",
        "<@a..b:u@c>",
    ] {
        assert_eq!(text.parse::<ForwardPath>(), Err(PathError::SourceRoute), "{text}");
        assert_eq!(text.parse::<ReversePath>(), Err(PathError::SourceRoute), "{text}");
    }
    assert_eq!("<@a.test:>".parse::<ForwardPath>(), Err(MailboxError::NoDomain.into()));
    assert_eq!("<@a.test:postmaster>".parse::<ForwardPath>(), Err(MailboxError::NoDomain.into()));
}

#[test]
fn a_source_route_with_utf8_needs_smtputf8() {
    let path = "<@πρ.test:u@c.test>".as_bytes();
    assert_eq!(ForwardPath::parse_prefix(path, Charset::Ascii), Err(MailboxError::NeedsUtf8.into()));
    assert!(ForwardPath::parse_prefix(path, Charset::Utf8).is_ok());
}

#[test]
fn the_null_path_is_a_sender_and_the_bare_postmaster_a_recipient() {
    assert_eq!("<>".parse(), Ok(ReversePath::Null));
    assert_eq!(ReversePath::Null.as_str(), "");
    assert_eq!("<>".parse::<ForwardPath>(), Err(PathError::Empty));
    for text in ["<Postmaster>", "<postmaster>", "<POSTMASTER>"] {
        let path: ForwardPath = text.parse().unwrap();
        assert_eq!((&path, path.host()), (&ForwardPath::Postmaster, None));
        assert_eq!(text.parse::<ReversePath>(), Err(MailboxError::NoDomain.into()));
    }
    let qualified: ForwardPath = "<postmaster@a.test>".parse().unwrap();
    assert!(matches!(qualified.host(), Some(Host::Domain(_))));
    assert_eq!(qualified.domain().map(Domain::as_str), Some("a.test"));
}

#[test]
fn a_path_without_its_brackets_is_none() {
    for text in ["", "a@b.test", "<a@b.test", "a@b.test>", " <a@b.test>", "<\"a>@b.test>", "<a\\>", "<"] {
        assert!(text.parse::<ForwardPath>().is_err(), "{text}");
        assert!(text.parse::<ReversePath>().is_err(), "{text}");
    }
}
