//! What a server cannot take fails without being asked for.

use empath_common::Mailbox;

use super::Transaction;
use crate::client::{FailureKind, Feature, SizeLimit, Stage, Survey};

impl Transaction<'_> {
    /// Whether no recipient at all can be served without SMTPUTF8 (RFC 6531 §3.1).
    pub(super) fn needs_utf8(&self) -> bool {
        self.message.reverse_path.mailbox().is_some_and(needs_utf8)
            || (self.message.smtputf8 && self.message.survey.eight_bit_header)
    }

    pub(super) fn refuse_unsupported(&mut self) {
        let Survey { octets, eight_bit, .. } = self.message.survey;
        let unsupported = |feature| Err(Stage::MailFrom.failed(FailureKind::Unsupported(feature)));
        if self.offered.size.is_some_and(|limit: SizeLimit| !limit.allows(octets)) {
            self.end_all(&unsupported(Feature::Size));
        }
        if !self.offered.smtputf8 {
            if self.needs_utf8() {
                self.end_all(&unsupported(Feature::Smtputf8));
            }
            for (number, recipient) in self.message.recipients.iter().enumerate() {
                if recipient.mailbox().is_some_and(needs_utf8) {
                    self.end(number, unsupported(Feature::Smtputf8));
                }
            }
        }
        if eight_bit && !self.offered.eight_bit_mime {
            self.end_all(&unsupported(Feature::EightBitMime));
        }
    }
}

/// A local part can't be written any other way; a domain can.
pub(super) fn needs_utf8(mailbox: &Mailbox) -> bool {
    !mailbox.local_part().is_ascii()
}
