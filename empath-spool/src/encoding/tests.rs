use proptest::prelude::*;

use super::*;

#[test]
fn a_missing_field_is_an_error_and_no_default() {
    let mut fields = Vec::new();
    put(&mut fields, ID, &[9; 16]);
    assert_eq!(envelope(&fields), Err(FieldError::Missing));
    assert_eq!(id(&[]), Err(FieldError::Missing));
}

#[test]
fn a_recipient_that_is_not_an_address_is_an_error_and_not_left_out() {
    let mut fields = Vec::new();
    put(&mut fields, accepted::RECIPIENT, b"bob@example.test");
    put(&mut fields, accepted::RECIPIENT, b"no address");
    assert_eq!(envelope(&fields), Err(FieldError::Value));
}

fn asking() -> Envelope {
    let mut envelope = Envelope::new(ReversePath::Null, ForwardPath::Postmaster);
    for recipient in ["<b@example.test>", "<c@example.test>", "<d@example.test>"] {
        envelope.add(recipient.parse().unwrap(), 10).unwrap();
    }
    let envid = EnvelopeId::parse(b"QQ+2B1");
    envelope.ask(MessageNotification { ret: Some(Ret::Headers), envid });
    let notify = |text: &str| Notify::parse(text.as_bytes());
    let orcpt = OriginalRecipient::parse("utf-8;\u{3b1}@example.test".as_bytes());
    envelope.ask_about(0, RecipientNotification { notify: notify("NEVER"), orcpt: None });
    envelope.ask_about(2, RecipientNotification { notify: notify("SUCCESS,DELAY"), orcpt: orcpt.clone() });
    envelope.ask_about(3, RecipientNotification { notify: None, orcpt });
    envelope
}

#[test]
fn what_the_sender_asked_is_decoded_as_it_was_encoded() {
    for notify in ["NEVER", "SUCCESS", "FAILURE", "DELAY", "SUCCESS,FAILURE,DELAY"] {
        let mut envelope = asking();
        let notify = Notify::parse(notify.as_bytes());
        envelope.ask_about(1, RecipientNotification { notify, orcpt: None });
        for ret in [None, Some(Ret::Full), Some(Ret::Headers)] {
            let envid = envelope.notification().envid.clone();
            envelope.ask(MessageNotification { ret, envid });
            let mut octets = Vec::new();
            put_envelope(&mut octets, &envelope);
            assert_eq!(super::envelope(&octets), Ok(envelope.clone()));
        }
    }
}

#[test]
fn a_priority_is_decoded_as_it_was_encoded_and_an_unknown_one_is_normal() {
    for priority in Priority::ALL {
        let mut asked = asking();
        asked.priority = priority;
        let mut octets = Vec::new();
        put_envelope(&mut octets, &asked);
        assert_eq!(envelope(&octets), Ok(asked));
    }
    let mut octets = Vec::new();
    put_envelope(&mut octets, &asking());
    put(&mut octets, accepted::PRIORITY, &[9]);
    assert_eq!(envelope(&octets), Ok(asking()));
}

#[test]
fn a_scheduled_time_and_a_transfer_priority_are_decoded_as_they_were_encoded() {
    let until = "2026-12-24T18:00:00.25Z".parse().unwrap();
    for future_release in [None, Some(FutureRelease::For(3600)), Some(FutureRelease::Until(until))] {
        for number in -9..=9 {
            let mut asked = asking();
            (asked.mt_priority, asked.future_release) = (MtPriority::new(number), future_release);
            let mut octets = Vec::new();
            put_envelope(&mut octets, &asked);
            assert_eq!(envelope(&octets), Ok(asked));
        }
    }
}

#[test]
fn a_record_from_before_scheduled_times_has_none() {
    let mut record = Vec::new();
    put_time(&mut record, accepted::RECEIVED_AT, "2026-11-21T00:00:00Z".parse().unwrap());
    put(&mut record, accepted::REVERSE_PATH, b"alice@home.test");
    put(&mut record, accepted::RECIPIENT, b"bob@example.test");
    put(&mut record, accepted::BODY, &[0]);
    put(&mut record, accepted::SMTPUTF8, &[0]);
    let old = envelope(&record).unwrap();
    assert_eq!((old.future_release, old.mt_priority), (None, None));
    assert_eq!(old.released_at(), old.received_at);
    // And what is not there is not written: an older version reads what it has always read.
    let mut again = Vec::new();
    put_envelope(&mut again, &old);
    assert_eq!(again, record);
    // A priority that a later version may know.
    put(&mut record, accepted::MT_PRIORITY, &[10]);
    assert_eq!(envelope(&record), Ok(old));
}

proptest! {
    #[test]
    fn no_octets_make_a_decoder_panic(octets: Vec<u8>) {
        let _ = (id(&octets), envelope(&octets));
    }

    #[test]
    fn no_change_of_an_envelope_makes_a_decoder_panic(
        at: prop::sample::Index, octet: u8, timed: bool,
    ) {
        let mut octets = Vec::new();
        put(&mut octets, ID, &[9; 16]);
        let mut asked = asking();
        asked.mt_priority = MtPriority::new(-3);
        let time = if timed { FutureRelease::Until(asked.received_at) } else { FutureRelease::For(60) };
        asked.future_release = Some(time);
        put_envelope(&mut octets, &asked);
        let at = at.index(octets.len());
        octets[at] = octet;
        let _ = (id(&octets), envelope(&octets));
    }
}
