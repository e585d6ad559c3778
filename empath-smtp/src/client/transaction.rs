use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
};

use bytes::Bytes;
use empath_common::{Body, EnvelopeId, ForwardPath, Mailbox, MessageNotification, OriginalRecipient, Reply};

use super::{
    Extensions, Failure, FailureKind, Feature, GarbledReason, Outgoing, Sent, SizeLimit, Stage, Survey,
};

/// Most commands that are written before their replies are read: few enough that their replies fit in what the
/// network buffers, so that both sides can't wait for each other (RFC 2920 §3.1).
const MAX_GROUP: usize = 100;

/// One mail transaction (RFC 5321 §3.3) as the client sees it: takes replies, says what to do next.
///
/// With PIPELINING everything up to DATA is one group of commands; without it every command waits for its reply.
#[derive(Debug)]
pub struct Transaction<'a> {
    message: &'a Outgoing,
    offered: Extensions,
    /// What became of each recipient; `None` while it is open.
    results: Vec<Option<Result<Reply, Failure>>>,
    next: Next,
    /// Commands that are written, in order, whose replies are still to come.
    awaiting: VecDeque<Command>,
    /// The server has accepted MAIL, and neither content nor RSET ended that.
    begun: bool,
    reusable: bool,
    /// MAIL has the SMTPUTF8 parameter.
    smtputf8: bool,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Write these commands.
    Write(Stage, Bytes),
    /// Write the content with its end of data.
    Content,
    /// Read one reply and give it to [`Transaction::reply`].
    Read(Stage),
    /// It is over.
    Done(Sent),
}

/// What is still to be written.
#[derive(Debug, Clone, Copy)]
enum Next {
    Mail,
    /// RCPT for the recipients from this one on.
    Rcpt(usize),
    Data,
    Content,
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Mail,
    Rcpt(usize),
    Data,
    EndOfData,
    Rset,
}

impl<'a> Transaction<'a> {
    /// A transaction with a server that offers these extensions. What the server can't take fails here,
    /// without being asked for.
    pub fn new(message: &'a Outgoing, offered: Extensions) -> Self {
        let mut transaction = Self {
            message,
            offered,
            results: vec![None; message.recipients.len()],
            next: Next::Mail,
            awaiting: VecDeque::new(),
            begun: false,
            reusable: true,
            smtputf8: false,
        };
        let mut recipients = message.recipients.iter().filter_map(ForwardPath::mailbox);
        transaction.smtputf8 = offered.smtputf8 && (transaction.needs_utf8() || recipients.any(needs_utf8));
        transaction.refuse_unsupported();
        transaction
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if let Some(command) = self.awaiting.front() {
            return Step::Read(command.stage());
        }
        let (stage, commands) = self.group();
        if !commands.is_empty() {
            return Step::Write(stage, commands.into());
        }
        if let Next::Content = self.next {
            self.next = Next::Nothing;
            if self.any_open() {
                self.awaiting.push_back(Command::EndOfData);
                return Step::Content;
            }
            // RFC 2920 §3.1: 354 although nobody gets the message. A server that sees no content sends none.
            return self.command(Command::EndOfData);
        }
        if self.begun && self.reusable {
            // The refused message must not become part of the next one.
            self.begun = false;
            return self.command(Command::Rset);
        }
        Step::Done(self.sent())
    }

    /// Takes the reply to the oldest command that has none.
    pub fn reply(&mut self, reply: Reply) {
        let Some(command) = self.awaiting.pop_front() else {
            return;
        };
        let stage = command.stage();
        // RFC 5321 §3.8: the server closes the connection, whatever it was asked.
        if reply.code.get() == 421 {
            return self.failed(stage, FailureKind::Refused(reply));
        }
        let refused = reply.code.is_transient() || reply.code.is_permanent();
        let granted = match command {
            Command::Data => reply.code.is_intermediate(),
            _ => reply.code.is_positive(),
        };
        if !refused && !granted {
            return self.failed(stage, FailureKind::Garbled(GarbledReason::Unexpected));
        }
        match command {
            Command::Mail if granted => self.begun = true,
            Command::Data if granted => self.next = Next::Content,
            Command::Mail => {
                self.next = Next::Nothing;
                self.end_all(&Err(stage.refused(reply)));
            }
            Command::Rcpt(_) if granted => {}
            Command::Rcpt(number) => self.end(number, Err(stage.refused(reply))),
            Command::Data => self.end_all(&Err(stage.refused(reply))),
            Command::EndOfData => {
                self.begun = false;
                self.end_all(&if granted { Ok(reply) } else { Err(stage.refused(reply)) });
            }
            Command::Rset => self.reusable = granted,
        }
    }

    /// The dialogue broke off: every recipient without a result has this one.
    pub fn failed(&mut self, stage: Stage, kind: FailureKind) {
        self.end_all(&Err(stage.failed(kind)));
        self.awaiting.clear();
        self.next = Next::Nothing;
        self.reusable = false;
    }

    /// The next commands, as many as may be written at once.
    fn group(&mut self) -> (Stage, String) {
        let limit = if self.offered.pipelining { MAX_GROUP } else { 1 };
        let mut text = String::new();
        while self.awaiting.len() < limit
            && let Some(command) = self.advance()
        {
            self.write(command, &mut text);
            self.awaiting.push_back(command);
        }
        (self.awaiting.front().map_or(Stage::MailFrom, |first| first.stage()), text)
    }

    fn command(&mut self, command: Command) -> Step {
        let mut text = String::new();
        self.write(command, &mut text);
        self.awaiting.push_back(command);
        Step::Write(command.stage(), text.into())
    }

    fn advance(&mut self) -> Option<Command> {
        loop {
            match self.next {
                Next::Content | Next::Nothing => return None,
                // Nobody is left to send it to.
                _ if !self.any_open() => self.next = Next::Nothing,
                Next::Mail => {
                    self.next = Next::Rcpt(0);
                    return Some(Command::Mail);
                }
                Next::Rcpt(number) => match self.results.get(number) {
                    None => self.next = Next::Data,
                    Some(result) => {
                        self.next = Next::Rcpt(number + 1);
                        if result.is_none() {
                            return Some(Command::Rcpt(number));
                        }
                    }
                },
                Next::Data => {
                    // Until 354.
                    self.next = Next::Nothing;
                    return Some(Command::Data);
                }
            }
        }
    }

    fn write(&self, command: Command, text: &mut String) {
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
            Command::EndOfData => text.push('.'),
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

    /// Whether no recipient at all can be served without SMTPUTF8 (RFC 6531 §3.1).
    fn needs_utf8(&self) -> bool {
        self.message.reverse_path.mailbox().is_some_and(needs_utf8)
            || (self.message.smtputf8 && self.message.survey.eight_bit_header)
    }

    fn refuse_unsupported(&mut self) {
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

    fn any_open(&self) -> bool {
        self.results.iter().any(Option::is_none)
    }

    /// The first result of a recipient stays.
    fn end(&mut self, number: usize, result: Result<Reply, Failure>) {
        if let Some(open @ None) = self.results.get_mut(number) {
            *open = Some(result);
        }
    }

    fn end_all(&mut self, result: &Result<Reply, Failure>) {
        for open in self.results.iter_mut().filter(|open| open.is_none()) {
            *open = Some(result.clone());
        }
    }

    fn sent(&mut self) -> Sent {
        // No recipient is open by now; one that were would be tried again.
        self.end_all(&Err(Stage::EndOfData.failed(FailureKind::Closed)));
        let recipients = std::mem::take(&mut self.results).into_iter().flatten().collect();
        Sent { recipients, notifies: self.offered.dsn, reusable: self.reusable }
    }
}

impl Command {
    fn stage(self) -> Stage {
        match self {
            Self::Mail => Stage::MailFrom,
            Self::Rcpt(_) => Stage::RcptTo,
            Self::Data => Stage::Data,
            Self::EndOfData => Stage::EndOfData,
            Self::Rset => Stage::Rset,
        }
    }
}

fn put(text: &mut String, name: &str, value: Option<impl fmt::Display>) {
    if let Some(value) = value {
        // Writing to a String cannot fail.
        let _ = write!(text, " {name}={value}");
    }
}

/// A local part can't be written any other way; a domain can.
fn needs_utf8(mailbox: &Mailbox) -> bool {
    !mailbox.local_part().is_ascii()
}

#[cfg(test)]
mod tests;
