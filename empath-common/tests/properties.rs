//! What holds for any input: parse ∘ display is the identity, and nothing panics.
#![expect(clippy::unwrap_used, reason = "what does not read back fails the test")]

use empath_common::{
    AddressLiteral, ByteSize, Charset, Domain, EnhancedStatus, Escaped, ForwardPath, Mailbox, MessageId,
    ReplyCode, ReversePath,
};
use proptest::prelude::*;

const ATOM: &str = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,8}";
const QUOTED: &str = r#""([ !#-\[\]-~é日]|\\[ -~]){0,20}""#;
const LABEL: &str = "[a-zA-Z0-9]([a-zA-Z0-9]{0,12}[a-zA-Z0-9])?";

fn domain_text() -> impl Strategy<Value = String> {
    let label = prop_oneof![4 => LABEL, 1 => "[a-zäöüéλж日本]{1,10}", 1 => "xn--[a-z0-9-]{1,12}"];
    prop::collection::vec(label, 1..5).prop_map(|labels| labels.join("."))
}

fn mailbox_text() -> impl Strategy<Value = String> {
    let dot_string =
        prop::collection::vec(prop_oneof![4 => ATOM, 1 => "[δж語]{1,4}"], 1..4).prop_map(|a| a.join("."));
    let literal = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|v4| format!("[{v4}]")),
        any::<std::net::Ipv6Addr>().prop_map(|v6| format!("[IPv6:{v6}]")),
    ];
    (prop_oneof![dot_string, QUOTED], prop_oneof![4 => domain_text(), 1 => literal])
        .prop_map(|(local, host)| format!("{local}@{host}"))
}

/// Octets of which some are near an address.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let near = r#"[<>@:,."\\\[\]a-zA-Z0-9 \-é\x00-\x1f]{0,60}"#.prop_map(String::into_bytes);
    prop_oneof![
        near,
        prop::collection::vec(any::<u8>(), 0..300),
        mailbox_text().prop_map(|m| format!("<{m}>").into_bytes())
    ]
}

proptest! {
    #[test]
    fn a_mailbox_reads_back_as_it_was_written(text in mailbox_text()) {
        if let Ok(mailbox) = text.parse::<Mailbox>() {
            prop_assert_eq!(mailbox.to_string(), text.as_str());
            prop_assert_eq!(&mailbox.to_string().parse::<Mailbox>().unwrap(), &mailbox);
            prop_assert!(mailbox.local_part().len() <= Mailbox::MAX_LOCAL_LEN);
            let canonical = mailbox.canonical_local_part();
            let again: Mailbox = format!("{canonical}@{}", mailbox.host()).parse().unwrap();
            prop_assert_eq!((again.local_part(), again.canonical_local_part()), (&*canonical, canonical.clone()));
            prop_assert_eq!(&again, &*mailbox.canonical());
        }
    }

    #[test]
    fn every_mailbox_of_ascii_atoms_and_labels_is_one(
        local in prop::collection::vec(ATOM, 1..5), labels in prop::collection::vec(LABEL, 1..5),
    ) {
        let text = format!("{}@{}", local.join("."), labels.join("."));
        let mailbox = Mailbox::parse(text.as_bytes(), Charset::Ascii);
        prop_assume!(!labels.iter().any(|label| label.to_ascii_lowercase().starts_with("xn--")));
        let domain = mailbox.unwrap().domain().cloned().unwrap();
        prop_assert_eq!(domain.as_str(), labels.join(".").to_ascii_lowercase());
    }

    #[test]
    fn a_domain_is_canonical_once_parsed(text in domain_text()) {
        if let Ok(domain) = Domain::parse(&text) {
            prop_assert!(domain.as_str().len() <= Domain::MAX_LEN);
            prop_assert!(domain.as_str().is_ascii() && !domain.as_str().bytes().any(|b| b.is_ascii_uppercase()));
            prop_assert_eq!(&Domain::parse(domain.as_str()).unwrap(), &domain);
            prop_assert_eq!(Domain::parse(&text.to_uppercase()).unwrap(), domain);
        }
    }

    #[test]
    fn a_path_reads_back_with_what_follows_it(text in mailbox_text(), rest in " ?[A-Z=<>]{0,10}") {
        let path = format!("<{text}>");
        if let Ok(forward) = path.parse::<ForwardPath>() {
            prop_assert_eq!(forward.to_string(), path.as_str());
            let line = format!("{path}{rest}");
            let (again, left) = ForwardPath::parse_prefix(line.as_bytes(), Charset::Utf8).unwrap();
            prop_assert_eq!((again, left), (forward, rest.as_bytes()));
        }
        if let Ok(reverse) = path.parse::<ReversePath>() {
            prop_assert_eq!(reverse.to_string().parse::<ReversePath>().unwrap(), reverse);
        }
    }

    #[test]
    fn any_octets_are_parsed_or_refused(octets in octets()) {
        let text = String::from_utf8_lossy(&octets);
        for charset in [Charset::Ascii, Charset::Utf8] {
            if let Ok(mailbox) = Mailbox::parse(&octets, charset) {
                prop_assert!(!mailbox.as_str().chars().any(char::is_control));
                prop_assert!(charset == Charset::Utf8 || mailbox.as_str().is_ascii());
            }
            if let Ok((path, rest)) = ForwardPath::parse_prefix(&octets, charset) {
                prop_assert!(octets.ends_with(rest) && path.to_string().len() <= 256);
            }
            if let Ok((path, rest)) = ReversePath::parse_prefix(&octets, charset) {
                prop_assert!(octets.ends_with(rest) && path.to_string().len() <= 256);
            }
        }
        let _ = (Domain::parse(&text), text.parse::<AddressLiteral>(), text.parse::<ByteSize>());
        let _ = (text.parse::<MessageId>(), text.parse::<EnhancedStatus>());
    }

    #[test]
    fn a_literal_reads_back(address in any::<std::net::IpAddr>()) {
        let literal = AddressLiteral(address);
        prop_assert_eq!(literal.to_string().parse::<AddressLiteral>().unwrap(), literal);
    }

    #[test]
    fn an_id_reads_back_and_sorts_by_time(octets in any::<[u8; 16]>(), a in 0..1_i64 << 40, b in 0..1_i64 << 40) {
        let id = MessageId::from_bytes(octets);
        prop_assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        prop_assert_eq!(id.to_string().len(), 26);
        prop_assert_eq!(id.to_bytes(), octets);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut at = |ms| MessageId::generate(jiff::Timestamp::from_millisecond(ms).unwrap(), &mut rng);
        let (first, second) = (at(a), at(b));
        prop_assert!(a == b || (a < b) == (first < second));
        prop_assert_eq!(first < second, first.to_string() < second.to_string());
    }

    #[test]
    fn text_is_an_id_in_one_way_only(text in "[0-9A-HJKMNP-TV-Z]{26}") {
        if let Ok(id) = text.parse::<MessageId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn a_size_reads_back(size in prop_oneof![any::<u64>(), (0_u64..1 << 20, 0_u32..41).prop_map(|(n, s)| n << s)]) {
        let size = ByteSize(size);
        prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        let json = serde_json::to_string(&size).unwrap();
        prop_assert_eq!(serde_json::from_str::<ByteSize>(&json).unwrap(), size);
        prop_assert_eq!(serde_json::from_str::<ByteSize>(&size.0.to_string()).unwrap(), size);
    }

    #[test]
    fn an_enhanced_status_reads_back(
        class in prop::sample::select(vec![2_u8, 4, 5]), subject in 0_u16..1000, detail in 0_u16..1000,
    ) {
        let status = EnhancedStatus::new(class, subject, detail);
        prop_assert_eq!(status.to_string().parse::<EnhancedStatus>().unwrap(), status);
    }

    #[test]
    fn a_reply_code_has_one_class(code in any::<u16>()) {
        match ReplyCode::new(code) {
            Ok(reply) => {
                let classes = [reply.is_positive(), reply.is_intermediate(), reply.is_transient(), reply.is_permanent()];
                prop_assert_eq!(classes.iter().filter(|is| **is).count(), 1);
                prop_assert_eq!((reply.get(), reply.to_string().len()), (code, 3));
            }
            Err(_) => prop_assert!(!(200..600).contains(&code)),
        }
    }

    #[test]
    fn escaped_octets_are_one_harmless_line(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let shown = Escaped(&octets).to_string();
        prop_assert!(!shown.chars().any(char::is_control));
        prop_assert_eq!(unescape(&shown), octets);
    }
}

/// The octets that an escaped text stands for; so nothing is lost and no two inputs look alike.
fn unescape(shown: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = shown;
    while let Some((plain, escape)) = rest.split_once('\\') {
        octets.extend(plain.bytes());
        let (kind, tail) = escape.split_at(1);
        rest = match kind {
            "x" => {
                octets.push(u8::from_str_radix(&tail[..2], 16).unwrap());
                &tail[2..]
            }
            "u" => {
                let (digits, tail) = tail[1..].split_once('}').unwrap();
                let c = char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap();
                octets.extend(c.to_string().bytes());
                tail
            }
            plain => {
                octets.push(match plain {
                    "n" => b'\n',
                    "r" => b'\r',
                    "t" => b'\t',
                    _ => b'\\',
                });
                tail
            }
        };
    }
    octets.extend(rest.bytes());
    octets
}
