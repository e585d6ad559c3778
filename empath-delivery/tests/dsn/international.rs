//! Reports about SMTPUTF8 messages (RFC 6533).

use empath_common::{Body, OriginalRecipient};
use empath_delivery::dsn::Failed;
use mailparse::MailHeaderMap as _;

use crate::support::{CONTENT, check, envelope, failed, make, pairs, status};

#[test]
fn an_internationalised_message_is_reported_in_ascii_with_the_types_of_rfc_6533() {
    let mut original = envelope("<δοκ@home.test>");
    original.smtputf8 = true;
    let content = "Subject: δοκιμή\r\n\r\n".as_bytes();
    let report = make(&original, content, &[failed("<πα@example.test>", "no")], None);
    let (envelope, octets) = report.unwrap();
    assert!(envelope.smtputf8, "the address of the sender needs it");
    let to = "To: <δοκ@home.test>\r\n".as_bytes();
    let at = octets.windows(to.len()).position(|window| window == to).unwrap();
    let without_to = [&octets[..at], &octets[at + to.len()..]].concat();
    let mail = check(&without_to);
    assert_eq!(mail.subparts[1].ctype.mimetype, "message/global-delivery-status");
    assert_eq!(pairs(&status(&mail)[1])[0], ("Final-Recipient", "utf-8; πα@example.test"));
    assert_eq!(mail.subparts[2].ctype.mimetype, "message/global-headers");
    assert!(mail.subparts[0].get_body().unwrap().contains("πα@example.test"));
}

#[test]
fn an_original_recipient_in_utf8_is_written_as_it_is_about_an_smtputf8_message_and_in_ascii_about_another() {
    let orcpt = OriginalRecipient::parse(b"utf-8;\\x{3C0}@example.test");
    let bob = Failed { orcpt, ..failed("<bob@example.test>", "no") };
    for (smtputf8, kind, address) in [
        (true, "global-delivery-status", "utf-8; π@example.test"),
        (false, "delivery-status", "utf-8; \\x{3C0}@example.test"),
    ] {
        let mut original = envelope("<alice@home.test>");
        original.smtputf8 = smtputf8;
        let (envelope, content) = make(&original, CONTENT, std::slice::from_ref(&bob), None).unwrap();
        assert_eq!((envelope.smtputf8, envelope.body), (false, Body::SevenBit), "any host takes it");
        let mail = check(&content);
        assert_eq!(mail.ctype.params["report-type"], kind);
        assert_eq!(pairs(&status(&mail)[1])[0], ("Original-Recipient", address));
    }
}

#[test]
fn an_smtputf8_message_without_utf8_is_reported_in_the_types_that_everybody_knows() {
    let mut original = envelope("<alice@home.test>");
    original.smtputf8 = true;
    let (_, content) = make(&original, CONTENT, &[failed("<bob@example.test>", "no")], None).unwrap();
    let mail = check(&content);
    let types: Vec<_> = mail.subparts.iter().map(|part| part.ctype.mimetype.as_str()).collect();
    assert_eq!(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
}

#[test]
fn a_sender_whose_domain_alone_is_internationalised_needs_no_smtputf8() {
    let report = make(&envelope("<alice@bücher.test>"), CONTENT, &[failed("<bob@example.test>", "no")], None);
    let (envelope, content) = report.unwrap();
    assert!(!envelope.smtputf8);
    let to = check(&content).headers.get_first_value("To").unwrap();
    assert_eq!(to, "<alice@xn--bcher-kva.test>");
}
