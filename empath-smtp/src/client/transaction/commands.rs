//! The text of commands.

use std::fmt::{self, Write as _};

use empath_common::{Body, EnvelopeId, ForwardPath, Mailbox, MessageNotification, OriginalRecipient};

use super::{Command, Transaction};

impl Transaction<'_> {
    pub(super) fn write(&self, command: Command, text: &mut String) {
        match command {
            Command::Mail => self.write_mail(text),
            Command::Rcpt(number) => {
                text.push_str("RCPT TO:<");
                match self.message.recipients.get(number).and_then(ForwardPath::mailbox) {
                    Some(mailbox) => self.write_address(mailbox, text),
                    None => text.push_str("Postmaster"),
                }
                text.push('>');
                self.write_notification(number, text);
            }
            Command::Data => text.push_str("DATA"),
            Command::EndOfData(_) => text.push('.'),
            Command::Chunk { octets, last } => {
                // Writing to a String cannot fail.
                let _ = write!(text, "BDAT {octets}{}", if last { " LAST" } else { "" });
            }
            Command::Rset => text.push_str("RSET"),
        }
        text.push_str("\r\n");
    }

    fn write_mail(&self, text: &mut String) {
        text.push_str("MAIL FROM:<");
        if let Some(mailbox) = self.message.reverse_path.mailbox() {
            self.write_address(mailbox, text);
        }
        text.push('>');
        if self.offered.size.is_some() {
            text.push_str(" SIZE=");
            text.push_str(&self.message.survey.octets.to_string());
        }
        if self.offered.eight_bit_mime
            && (self.message.survey.eight_bit || self.message.body == Body::EightBitMime)
        {
            text.push_str(" BODY=8BITMIME");
        }
        if self.smtputf8 {
            text.push_str(" SMTPUTF8");
        }
        if self.offered.mt_priority {
            put(text, "MT-PRIORITY", self.message.mt_priority);
        }
        if self.offered.dsn {
            let MessageNotification { ret, envid } = &self.message.notification;
            put(text, "RET", *ret);
            put(text, "ENVID", envid.as_ref().map(EnvelopeId::as_str));
        }
    }

    /// What the sender asked, unchanged (RFC 3461 §5.2.1), but in ASCII where there is no SMTPUTF8 (RFC 6533 §3).
    fn write_notification(&self, number: usize, text: &mut String) {
        if let Some(asked) = self.message.notifications.get(number).filter(|_| self.offered.dsn) {
            put(text, "NOTIFY", asked.notify);
            let orcpt = |asked: &OriginalRecipient| {
                if self.smtputf8 { asked.as_str().to_owned() } else { asked.to_ascii() }
            };
            put(text, "ORCPT", asked.orcpt.as_ref().map(orcpt));
        }
    }

    /// The address as it was written with SMTPUTF8, with A-labels without it: an address that is
    /// internationalised in its domain alone needs no extension.
    fn write_address(&self, mailbox: &Mailbox, text: &mut String) {
        if self.smtputf8 || !mailbox.needs_utf8() {
            text.push_str(mailbox.as_str());
        } else {
            text.push_str(mailbox.local_part());
            text.push('@');
            text.push_str(&mailbox.host().to_string());
        }
    }
}

fn put(text: &mut String, name: &str, value: Option<impl fmt::Display>) {
    if let Some(value) = value {
        // Writing to a String cannot fail.
        let _ = write!(text, " {name}={value}");
    }
}
