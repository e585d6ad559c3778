//! Who is told.

use empath_common::{Envelope, Mailbox};

/// The name of the metadata by which a report of ours is known, and its values: whom it is for.
const REPORT: &str = "empath.report";
const TO_SENDER: &str = "sender";
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
        let postmaster = postmaster.filter(|_| envelope.metadata.get(REPORT) == Some(TO_SENDER))?;
        // Where a report was refused already.
        let tried = envelope.recipients().iter().any(|recipient| recipient.mailbox() == Some(postmaster));
        (!tried).then_some(Self::Postmaster(postmaster))
    }

    pub(super) fn mailbox(self) -> &'a Mailbox {
        match self {
            Self::Sender(mailbox) | Self::Postmaster(mailbox) => mailbox,
        }
    }

    /// Stores with a report whom it is for.
    pub(super) fn mark(self, report: &mut Envelope) {
        let value = match self {
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
        let addressee = Addressee::of(failed, postmaster)?;
        let mut report = message(None, addressee.mailbox().clone());
        addressee.mark(&mut report);
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
        let sent = message(Some(postmaster.clone()), mailbox("b@x.test"));
        assert_eq!(next(&next(&sent, Some(&postmaster)).unwrap(), Some(&postmaster)), None);
    }

    fn any_mailbox() -> impl Strategy<Value = Mailbox> {
        (0..3_u8, 0..2_u8).prop_map(|(local, domain)| mailbox(&format!("u{local}@d{domain}.test")))
    }

    proptest! {
        #[test]
        fn any_sequence_of_failures_ends(
            from in prop::option::of(any_mailbox()),
            to in any_mailbox(),
            postmasters in prop::collection::vec(prop::option::of(any_mailbox()), 3),
            mark in prop::option::of(prop_oneof![Just(TO_SENDER), Just(TO_POSTMASTER), Just("odd")]),
        ) {
            let mut failed = message(from, to);
            if let Some(mark) = mark {
                failed.metadata.insert(REPORT.to_owned(), mark.to_owned()).unwrap();
            }
            // The configuration may change meanwhile.
            for postmaster in &postmasters {
                match next(&failed, postmaster.as_ref()) {
                    Some(report) => failed = report,
                    None => return Ok(()),
                }
            }
            prop_assert!(false, "the third report in a row");
        }
    }
}
