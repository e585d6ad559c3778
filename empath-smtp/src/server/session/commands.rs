use std::time::Duration;

use bytes::Buf;
use empath_common::{Mailbox, MessageNotification, Reply};
use zeroize::Zeroize as _;

use super::{
    super::{
        command::Command,
        line::{Line, MAX_AUTH_LINE},
        log,
        parameter::Parameters,
        reply,
        trace::Protocol,
        transaction::Mail,
        verb::Verb,
        xclient::Attribute,
    },
    Next, Session, Speaker, Waiting,
};

impl Session {
    /// Takes one command from the input.
    pub(super) fn command(&mut self) -> Option<Next> {
        // An initial response may be as long as any other (RFC 4954 §4).
        let is_auth = self.input.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "));
        let most = self.settings.limits.command_line;
        let most = if is_auth { most.max(MAX_AUTH_LINE) } else { most };
        let is_bdat = self.lines.is_at_start()
            && self.input.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"BDAT"));
        let parsed = match self.lines.next(&self.input, most) {
            Line::Partial => return Some(Next::Read),
            Line::Skip(_) if is_bdat => Err(reply::BAD_BDAT),
            Line::Skip(len) => {
                self.input.advance(len);
                return None;
            }
            Line::TooLong(len) => {
                self.progress = true;
                self.working = Some(Verb::OTHER);
                self.input.advance(len);
                Err(reply::COMMAND_TOO_LONG)
            }
            Line::Whole(len) => {
                self.progress = true;
                let line = self.input.get(..len - b"\r\n".len()).unwrap_or_default();
                self.working = Some(Verb::of(line));
                let parsed = Command::parse(line);
                if is_auth {
                    self.input.get_mut(..len).unwrap_or_default().zeroize();
                }
                self.input.advance(len);
                parsed
            }
        };
        let chunk = match &parsed {
            Ok(Command::Bdat(chunk)) => Some(*chunk),
            _ => None,
        };
        if let Err(reply) = parsed.and_then(|command| self.perform(command)) {
            log::bad_command(&self.client, &reply);
            match chunk {
                Some(chunk) => self.refuse_chunk(chunk, reply),
                // Nobody knows how many of the octets behind it are content, and content must not be taken for commands.
                None if is_bdat => self.close_with(&reply::BAD_BDAT),
                None => self.reply(&reply),
            }
        }
        None
    }

    /// Does what a command says, or gives the reason why it can't come now.
    fn perform(&mut self, command: Command) -> Result<(), Reply> {
        if self.must_encrypt() && !command.is_for_clear_text() {
            return Err(reply::STARTTLS_FIRST);
        }
        match command {
            Command::Ehlo(name) => self.hello(Protocol::Esmtp, name),
            Command::Helo(name) => self.hello(Protocol::Smtp, name),
            Command::StartTls => self.start_tls()?,
            Command::XClient(attributes) => self.xclient(attributes)?,
            Command::Auth(mechanism, initial) => self.authenticate(mechanism, initial.as_ref())?,
            Command::Mail(reverse_path, parameters) => {
                self.state.check_between_transactions()?;
                if self.mode.is_submission() && self.client.user.is_none() {
                    return Err(reply::AUTHENTICATION_REQUIRED);
                }
                if self.messages >= self.settings.limits.messages_per_connection {
                    self.close_with(&reply::TOO_MANY_MESSAGES);
                    return Ok(());
                }
                // Parameters belong to extensions, and those to EHLO (RFC 5321 §2.2.1).
                if self.protocol == Protocol::Smtp && parameters != Parameters::default() {
                    return Err(reply::UNKNOWN_PARAMETER);
                }
                let is_unknown = (parameters.auth && self.settings.auth.users_file.is_none())
                    || (parameters.notification != MessageNotification::default() && !self.settings.dsn)
                    || (parameters.future_release.is_some() && self.longest_wait().is_none());
                if is_unknown {
                    return Err(reply::UNKNOWN_PARAMETER);
                }
                if parameters.size.is_some_and(|size| size > self.settings.limits.message_size.0) {
                    return Err(reply::TOO_LARGE);
                }
                if self.must_qualify(reverse_path.mailbox()) {
                    return Err(reply::UNQUALIFIED_SENDER);
                }
                if !self.may_send_as(&reverse_path) {
                    self.refuse("MAIL", &reverse_path, &reply::NOT_YOUR_ADDRESS);
                    return Ok(());
                }
                self.waiting = Waiting::Mail(Mail::new(reverse_path, parameters));
            }
            Command::Rcpt(path, notification) => {
                if !notification.is_empty() && (self.protocol == Protocol::Smtp || !self.settings.dsn) {
                    return Err(reply::UNKNOWN_PARAMETER);
                }
                self.state.check_rcpt(&path, &notification)?;
                if self.must_qualify(path.mailbox()) {
                    return Err(reply::UNQUALIFIED_RECIPIENT);
                }
                self.waiting = Waiting::Rcpt(path, notification);
            }
            Command::Data => {
                self.state.check_data()?;
                self.waiting = Waiting::Data(None);
            }
            Command::Bdat(chunk) => self.bdat(chunk)?,
            Command::Rset => {
                self.state.reset();
                self.idle(&reply::OK);
            }
            Command::Noop => self.idle(&reply::OK),
            Command::Vrfy => self.idle(&reply::CANNOT_VERIFY),
            Command::Help => self.idle(&reply::HELP),
            Command::Quit => self.close_with(&reply::BYE),
        }
        Ok(())
    }

    /// How long the client may have messages wait, if it may.
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        self.settings.limits.future_release.filter(|_| self.may_schedule())
    }

    /// RFC 3207 §4: after EHLO. A transaction ends with it, as everything else that was said before (RFC 3207 §4.2).
    fn start_tls(&mut self) -> Result<(), Reply> {
        if !self.settings.starttls {
            return Err(reply::UNKNOWN_COMMAND);
        }
        if !self.offers_starttls() || self.protocol == Protocol::Smtp {
            return Err(reply::BAD_SEQUENCE);
        }
        self.reply(&reply::START_TLS);
        self.waiting = Waiting::StartTls;
        Ok(())
    }

    /// Whether an address of this user must be refused because its domain is a single label (RFC 6409 §4.2).
    fn must_qualify(&self, mailbox: Option<&Mailbox>) -> bool {
        let domain = mailbox.and_then(Mailbox::domain);
        self.mode.is_submission() && domain.is_some_and(|domain| !domain.as_str().contains('.'))
    }

    /// Whether users are asked to encrypt before they say anything that matters (RFC 8314 §4.1).
    fn must_encrypt(&self) -> bool {
        self.mode.is_submission() && self.offers_starttls() && self.client.user.is_none()
    }

    /// A proxy tells whom it speaks for. The session starts over as one with that client, which is greeted or refused.
    fn xclient(&mut self, attributes: Vec<Attribute>) -> Result<(), Reply> {
        if self.settings.xclient.is_empty() {
            return Err(reply::UNKNOWN_COMMAND);
        }
        if self.speaker != Speaker::Proxy {
            return Err(reply::XCLIENT_DENIED);
        }
        if self.state.reverse_path().is_some() {
            return Err(reply::BAD_SEQUENCE);
        }
        if self.too_many_commands() {
            return Ok(());
        }
        self.start_over();
        for attribute in attributes {
            attribute.tell(&mut self.client);
        }
        log::proxied(&self.client);
        self.waiting = Waiting::Connect;
        Ok(())
    }

    /// Asks policy about a client that introduces itself. EHLO and HELO end a transaction, once they are accepted.
    fn hello(&mut self, protocol: Protocol, name: Box<str>) {
        if self.too_many_commands() {
            return;
        }
        let previous = self.client.helo.replace(name);
        self.waiting = Waiting::Ehlo(protocol, previous);
    }

    /// Answers a command that brings no message nearer.
    fn idle(&mut self, reply: &Reply) {
        if !self.too_many_commands() {
            self.reply(reply);
        }
    }

    pub(super) fn too_many_commands(&mut self) -> bool {
        self.idle_commands += 1;
        let too_many = self.idle_commands > self.settings.limits.idle_commands;
        if too_many {
            self.close_with(&reply::TOO_MANY_COMMANDS);
        }
        too_many
    }
}
