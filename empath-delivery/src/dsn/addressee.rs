//! Who is told.

use empath_common::{Body, Envelope, Mailbox};

/// The name of the metadata by which a report of ours is known, and its values: whom it is for.
const REPORT: &str = "empath.report";
const TO_SENDER: &str = "sender";
const WHOLE_TO_SENDER: &str = "sender, whole message";
const TO_POSTMASTER: &str = "postmaster";

/// Who is told what became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressee<'a> {
    /// Its sender.
    Sender(&'a Mailbox),
    /// Ours, because the message is a report to a sender.
    Postmaster(&'a Mailbox),
}

impl<'a> Addressee<'a> {
    pub(super) fn of(envelope: &'a Envelope, postmaster: Option<&'a Mailbox>) -> Option<Self> {
        if let Some(sender) = envelope.reverse_path.mailbox() {
            return Some(Self::Sender(sender));
        }
        let to_sender = matches!(envelope.metadata.get(REPORT), Some(TO_SENDER | WHOLE_TO_SENDER));
        let postmaster = postmaster.filter(|_| to_sender)?;
        // Where a report was refused already.
        let is_his = |mailbox: &Mailbox| mailbox.canonical() == postmaster.canonical();
        let tried = envelope.recipients().iter().any(|recipient| recipient.mailbox().is_some_and(is_his));
        (!tried).then_some(Self::Postmaster(postmaster))
    }

    pub(super) fn mailbox(self) -> &'a Mailbox {
        match self {
            Self::Sender(mailbox) | Self::Postmaster(mailbox) => mailbox,
        }
    }

    /// Stores with a report whom it is for, and whether the message that it is about is in it as a whole.
    pub(super) fn mark(self, report: &mut Envelope, whole: bool) {
        let value = match self {
            Self::Sender(_) if whole => WHOLE_TO_SENDER,
            Self::Sender(_) => TO_SENDER,
            Self::Postmaster(_) => TO_POSTMASTER,
        };
        // There is room: it is the first.
        let _ = report.metadata.insert(REPORT.to_owned(), value.to_owned());
    }
}

/// Whether somebody is told what became of a message.
pub(crate) fn is_told(envelope: &Envelope, postmaster: Option<&Mailbox>) -> bool {
    Addressee::of(envelope, postmaster).is_some()
}

/// Whether the message is a report of ours.
pub(crate) fn is_report(envelope: &Envelope) -> bool {
    envelope.reverse_path.mailbox().is_none() && envelope.metadata.get(REPORT).is_some()
}

/// Whether the message is a report of ours to a sender with all of his message.
pub(crate) fn returns_whole(envelope: &Envelope) -> bool {
    is_report(envelope) && envelope.metadata.get(REPORT) == Some(WHOLE_TO_SENDER)
}

/// The envelope of such a report when it has no longer all of that message, and never will again.
pub(super) fn shortened(envelope: &Envelope) -> Option<Envelope> {
    let mut shorter = Some(envelope).filter(|envelope| returns_whole(envelope))?.clone();
    shorter.body = if shorter.smtputf8 { Body::EightBitMime } else { Body::SevenBit };
    shorter.metadata.insert(REPORT.to_owned(), TO_SENDER.to_owned()).ok()?;
    Some(shorter)
}

/// The address in ASCII, if there is such a form: with A-labels in its domain.
pub(super) fn ascii_address(mailbox: &Mailbox) -> Option<String> {
    let local_part = mailbox.local_part();
    local_part.is_ascii().then(|| format!("{local_part}@{}", mailbox.host()))
}

#[cfg(test)]
mod tests {
    use empath_common::{ForwardPath, ReversePath};
    use proptest::prelude::*;

    use super::*;

    fn mailbox(address: &str) -> Mailbox {
        address.parse().unwrap()
    }

    fn message(from: Option<Mailbox>, to: Mailbox) -> Envelope {
        let reverse_path = from.map_or(ReversePath::Null, ReversePath::Mailbox);
        Envelope::new(reverse_path, ForwardPath::Mailbox(to))
    }

    /// The report about a message that has failed.
    fn next(failed: &Envelope, postmaster: Option<&Mailbox>) -> Option<Envelope> {
        next_of(failed, postmaster, false, false)
    }

    /// The same; it has all of the message if it is `whole`, and the one that failed may have had `too_much` in it.
    fn next_of(
        failed: &Envelope,
        postmaster: Option<&Mailbox>,
        too_much: bool,
        whole: bool,
    ) -> Option<Envelope> {
        if let Some(shorter) = shortened(failed).filter(|_| too_much) {
            return Some(shorter);
        }
        let addressee = Addressee::of(failed, postmaster)?;
        let mut report = message(None, addressee.mailbox().clone());
        addressee.mark(&mut report, whole);
        Some(report)
    }

    #[test]
    fn the_sender_is_told_then_the_postmaster_then_nobody() {
        let postmaster = mailbox("postmaster@home.test");
        let sent = message(Some(mailbox("a@home.test")), mailbox("b@x.test"));
        let report = next(&sent, Some(&postmaster)).unwrap();
        assert_eq!(Addressee::of(&report, Some(&postmaster)), Some(Addressee::Postmaster(&postmaster)));
        assert_eq!(Addressee::of(&report, None), None, "there is no postmaster");
        let last = next(&report, Some(&postmaster)).unwrap();
        assert!(is_report(&report) && is_report(&last) && !is_report(&sent));
        assert_eq!(next(&last, Some(&postmaster)), None);
        // A report of somebody else that passes through.
        assert_eq!(next(&message(None, mailbox("b@x.test")), Some(&postmaster)), None);
        // What failed was sent by the postmaster.
        for his in ["postmaster@home.test", "\"post\\master\"@Home.test"] {
            let sent = message(Some(mailbox(his)), mailbox("b@x.test"));
            assert_eq!(next(&next(&sent, Some(&postmaster)).unwrap(), Some(&postmaster)), None, "{his}");
        }
    }

    #[test]
    fn a_report_with_a_whole_message_is_sent_again_without_it_once() {
        let postmaster = mailbox("postmaster@home.test");
        let sent = message(Some(mailbox("a@home.test")), mailbox("b@x.test"));
        let whole = next_of(&sent, Some(&postmaster), true, true).unwrap();
        assert_eq!(shortened(&sent), None);
        let shorter = next_of(&whole, Some(&postmaster), true, true).unwrap();
        assert_eq!(shorter.recipients(), whole.recipients());
        assert!(is_report(&shorter) && !returns_whole(&shorter));
        let last = next_of(&shorter, Some(&postmaster), true, true).unwrap();
        assert_eq!(last.recipients()[0].mailbox(), Some(&postmaster));
        assert_eq!(next_of(&last, Some(&postmaster), true, true), None);
        let last = next_of(&whole, Some(&postmaster), false, true).unwrap();
        assert_eq!(last.recipients()[0].mailbox(), Some(&postmaster), "it was not too much");
    }

    fn any_mailbox() -> impl Strategy<Value = Mailbox> {
        (0..3_u8, 0..2_u8).prop_map(|(local, domain)| mailbox(&format!("u{local}@d{domain}.test")))
    }

    proptest! {
        #[test]
        fn any_sequence_of_failures_ends(
            from in prop::option::of(any_mailbox()),
            to in any_mailbox(),
            failures in prop::collection::vec((prop::option::of(any_mailbox()), any::<bool>(), any::<bool>()), 4),
            mark in prop::option::of(
                prop_oneof![Just(WHOLE_TO_SENDER), Just(TO_SENDER), Just(TO_POSTMASTER), Just("odd")]
            ),
        ) {
            let mut failed = message(from, to);
            if let Some(mark) = mark {
                failed.metadata.insert(REPORT.to_owned(), mark.to_owned()).unwrap();
            }
            // The configuration may change meanwhile.
            for (postmaster, too_much, whole) in &failures {
                match next_of(&failed, postmaster.as_ref(), *too_much, *whole) {
                    Some(report) => failed = report,
                    None => return Ok(()),
                }
            }
            prop_assert!(false, "the fourth report in a row");
        }
    }
}
