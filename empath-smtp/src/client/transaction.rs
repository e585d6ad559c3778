mod commands;
mod unsupported;

use std::collections::VecDeque;

use bytes::Bytes;
use empath_common::{ForwardPath, Reply};

use super::{Extensions, Failure, FailureKind, GarbledReason, Outgoing, Protocol, Sent, Stage};

/// Most commands that are written before their replies are read: few enough that their replies fit in what the
/// network buffers, so that both sides can't wait for each other (RFC 2920 §3.1).
const MAX_GROUP: usize = 100;
/// Most chunks that are written before their replies are read: enough to fill a long way, few enough that a server that
/// wants no more is heard before much of a large message has gone for nothing.
const MAX_CHUNKS: usize = 16;
/// Octets of the first chunk: fewer than any command has.
const TRIAL: usize = 1;
/// Octets of content that goes in a single chunk whatever is known of the server: more than one line end behind the trial.
const MIN_TRIED: u64 = 3;

/// One mail transaction (RFC 5321 §3.3) as the client sees it: takes replies, says what to do next.
///
/// With PIPELINING everything up to DATA is one group of commands; without it every command waits for its reply. With
/// CHUNKING chunks take the place of DATA, and wait until somebody is to get the message. A server that offers it and doesn't
/// know BDAT, or is behind a firewall that doesn't let it pass, would read a chunk as commands, and obey the content. Hence the
/// first chunk over a connection has a single octet, which goes along with the recipients, and the rest waits until that was
/// accepted. (Postfix refuses an empty chunk.)
///
/// Over LMTP each recipient that was accepted has a reply of its own after the content (RFC 2033 §4.2).
#[derive(Debug)]
pub struct Transaction<'a> {
    message: &'a Outgoing,
    offered: Extensions,
    protocol: Protocol,
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
    chunks: Chunks,
}

/// Whether a server takes chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chunks {
    /// It may have offered to.
    #[default]
    Untried,
    /// It has accepted one.
    Taken,
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Write these commands.
    Write(Stage, Bytes),
    /// Write the content with its end of data.
    Content,
    /// Write [`Transaction::chunk`] and the next octets of the content behind it, so many at most.
    Chunk(usize),
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
    /// A chunk that shows whether the server takes any.
    Trial,
    Chunks,
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Mail,
    Rcpt(usize),
    Data,
    /// Over LMTP for the recipient alone whose turn it is.
    EndOfData(Option<usize>),
    Chunk {
        octets: usize,
        last: bool,
    },
    Rset,
}

impl<'a> Transaction<'a> {
    /// A transaction with a server that offers these extensions. What the server can't take fails here,
    /// without being asked for. `chunks` is what earlier transactions over the connection have shown.
    pub fn new(message: &'a Outgoing, offered: Extensions, protocol: Protocol, chunks: Chunks) -> Self {
        let mut transaction = Self {
            message,
            offered,
            protocol,
            results: vec![None; message.recipients.len()],
            next: Next::Mail,
            awaiting: VecDeque::new(),
            begun: false,
            reusable: true,
            smtputf8: false,
            chunks,
        };
        let mut recipients = message.recipients.iter().filter_map(ForwardPath::mailbox);
        transaction.smtputf8 =
            offered.smtputf8 && (transaction.needs_utf8() || recipients.any(unsupported::needs_utf8));
        transaction.refuse_unsupported();
        transaction
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if let Some(command) = self.awaiting.front() {
            let stage = command.stage();
            let chunk = match self.next {
                Next::Trial => self.offered.pipelining,
                Next::Chunks if matches!(command, Command::Chunk { .. }) => {
                    self.chunks == Chunks::Taken && self.awaiting.len() < self.chunks_at_once()
                }
                _ => false,
            };
            return if chunk { self.next_chunk() } else { Step::Read(stage) };
        }
        let (stage, commands) = self.group();
        if !commands.is_empty() {
            return Step::Write(stage, commands.into());
        }
        if let Next::Content = self.next {
            self.next = Next::Nothing;
            if self.any_open() {
                self.await_end();
                return Step::Content;
            }
            // RFC 2920 §3.1: 354 although nobody gets the message. A server that sees no content sends none.
            return self.command(Command::EndOfData(None));
        }
        if let Next::Trial | Next::Chunks = self.next {
            if self.any_open() {
                return self.next_chunk();
            }
            self.next = Next::Nothing;
        }
        if self.begun && self.reusable {
            // The refused message must not become part of the next one.
            self.begun = false;
            return self.command(Command::Rset);
        }
        Step::Done(self.sent())
    }

    /// What is too short for a command needs none.
    fn is_trial_due(&self) -> bool {
        self.chunks == Chunks::Untried && self.message.survey.octets > MIN_TRIED
    }

    fn next_chunk(&self) -> Step {
        Step::Chunk(if let Next::Trial = self.next { TRIAL } else { usize::MAX })
    }

    /// The command in front of the next octets of the content. With CHUNKING their number is all that ends them.
    pub fn chunk(&mut self, octets: usize, last: bool) -> Bytes {
        self.next = if last { Next::Nothing } else { Next::Chunks };
        let command = Command::Chunk { octets, last };
        let mut text = String::new();
        self.write(command, &mut text);
        match self.protocol {
            Protocol::Lmtp if last => self.await_end(),
            _ => self.awaiting.push_back(command),
        }
        text.into()
    }

    /// The content is out: now the replies to it.
    fn await_end(&mut self) {
        match self.protocol {
            Protocol::Smtp => self.awaiting.push_back(Command::EndOfData(None)),
            // RFC 2033 §4.2: one for each accepted recipient, in the order of the RCPT commands.
            Protocol::Lmtp => {
                let open = self.results.iter().enumerate().filter(|(_, result)| result.is_none());
                self.awaiting.extend(open.map(|(number, _)| Command::EndOfData(Some(number))));
            }
        }
    }

    /// What is known now.
    pub fn chunks(&self) -> Chunks {
        self.chunks
    }

    /// Whether some command is written whose reply has not come.
    pub fn awaits_replies(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// The server takes no more of the content. What it has said so far tells why.
    pub fn broken_off(&mut self) {
        self.next = Next::Nothing;
        self.reusable = false;
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
        if let Command::Chunk { last, .. } = command {
            if granted {
                self.chunks = Chunks::Taken;
            }
            // Even if MAIL was refused: who knows no chunks takes its octets for the beginning of the next command.
            self.begun |= !last;
        }
        match command {
            Command::Mail if granted => self.begun = true,
            Command::Data if granted => self.next = Next::Content,
            Command::Rcpt(_) | Command::Chunk { last: false, .. } if granted => {}
            Command::Rcpt(number) => self.end(number, Err(stage.refused(reply))),
            Command::Data => self.end_all(&Err(stage.refused(reply))),
            Command::EndOfData(recipient) => {
                self.begun = false;
                let result = if granted { Ok(reply) } else { Err(stage.refused(reply)) };
                match recipient {
                    Some(number) => self.end(number, result),
                    None => self.end_all(&result),
                }
            }
            Command::Chunk { .. } if granted => {
                self.begun = !self.any_open();
                self.end_all(&Ok(reply));
            }
            // RFC 3030 §2: no chunks follow a refused one, and RSET does, since nobody knows what there is of it.
            Command::Mail | Command::Chunk { .. } => {
                self.next = Next::Nothing;
                self.end_all(&Err(stage.refused(reply)));
                if self.awaiting.iter().any(|command| matches!(command, Command::EndOfData(_))) {
                    // How many replies the last chunk has now, nobody can tell.
                    self.awaiting.clear();
                    self.reusable = false;
                }
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

    fn chunks_at_once(&self) -> usize {
        if self.offered.pipelining { MAX_CHUNKS } else { 1 }
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
                Next::Content | Next::Chunks | Next::Nothing => return None,
                // Nobody is left to send it to.
                _ if !self.any_open() => self.next = Next::Nothing,
                Next::Mail => {
                    self.next = Next::Rcpt(0);
                    return Some(Command::Mail);
                }
                Next::Rcpt(number) => match self.results.get(number) {
                    None if !self.offered.chunking => self.next = Next::Data,
                    None => self.next = if self.is_trial_due() { Next::Trial } else { Next::Chunks },
                    Some(result) => {
                        self.next = Next::Rcpt(number + 1);
                        if result.is_none() {
                            return Some(Command::Rcpt(number));
                        }
                    }
                },
                Next::Trial => return None,
                Next::Data => {
                    // Until 354.
                    self.next = Next::Nothing;
                    return Some(Command::Data);
                }
            }
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
            Self::Chunk { last: false, .. } => Stage::Content,
            Self::EndOfData(_) | Self::Chunk { .. } => Stage::EndOfData,
            Self::Rset => Stage::Rset,
        }
    }
}

#[cfg(test)]
mod tests;
