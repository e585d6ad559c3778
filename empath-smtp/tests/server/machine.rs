//! Drives a session by hand, without a task or a socket.

use std::{
    mem,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use empath_common::{Client, Clock, Domain, Hook, Hooks, TlsSession};
use empath_metrics::Registry;
use empath_smtp::server::{
    Config, Draft, Intake, Metrics, Mode, Phase, RelayControl, Server, Session, Settings, Step,
};

use crate::{
    intake::{Growing, Shelf, Stopped},
    users,
};

pub(crate) struct Machine {
    pub(crate) session: Session,
    pub(crate) output: Vec<u8>,
    pub(crate) closed: bool,
    pub(crate) stopping: bool,
    pub(crate) handshaking: bool,
    hooks: Hooks,
    shelf: Shelf,
    draft: Option<Growing>,
}

pub(crate) fn client(peer: IpAddr) -> Client {
    Client::new((peer, 4321).into(), "192.0.2.25:25".parse().unwrap())
}

/// What the machine's handshakes come to.
const TLS: TlsSession =
    TlsSession { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384", certificate: None };

pub(crate) fn mode(config: &Config) -> Mode {
    config.listeners.first().map(|listener| listener.mode).unwrap_or_default()
}

pub(crate) fn settings(config: &Config) -> Settings {
    let hostname = Domain::parse("mx.test.example").unwrap();
    Settings::new(config, hostname, Metrics::new(&Registry::default()))
}

/// Relay control, then `more`.
pub(crate) fn hooks(config: &Config, more: Vec<Arc<dyn Hook>>) -> Hooks {
    let mut hooks: Vec<Arc<dyn Hook>> = vec![Arc::new(RelayControl::new(config))];
    hooks.extend(more);
    Hooks::new(hooks)
}

pub(crate) fn server(config: &Config, shelf: &Shelf) -> Server<Shelf> {
    Server::new(settings(config), hooks(config, Vec::new()), shelf.clone(), Arc::new(Stopped))
}

impl Machine {
    pub(crate) fn new(config: &Config, peer: IpAddr, shelf: &Shelf) -> Self {
        Self::with_hooks(config, peer, shelf, Vec::new())
    }

    /// A session of the first listener's mode.
    pub(crate) fn with_hooks(config: &Config, peer: IpAddr, shelf: &Shelf, more: Vec<Arc<dyn Hook>>) -> Self {
        let session = Session::new(Arc::new(settings(config)), mode(config), client(peer));
        let mut machine = Self { hooks: hooks(config, more), ..Self::of(session, config, shelf) };
        machine.run();
        machine
    }

    /// A session that has not begun.
    pub(crate) fn of(session: Session, config: &Config, shelf: &Shelf) -> Self {
        Self {
            session,
            output: Vec::new(),
            closed: false,
            stopping: false,
            handshaking: false,
            hooks: hooks(config, Vec::new()),
            shelf: shelf.clone(),
            draft: None,
        }
    }

    /// Gives the session these octets, as one read. During a handshake they would be taken for part of it.
    pub(crate) fn feed(&mut self, octets: &[u8]) {
        if !self.closed && !self.handshaking {
            self.session.buffer().extend_from_slice(octets);
            self.run();
        }
    }

    /// The client has done its handshake.
    pub(crate) fn handshake(&mut self) {
        assert!(mem::take(&mut self.handshaking), "a handshake is waited for");
        self.session.secured(TLS);
        self.run();
    }

    /// Steps until the session wants to read or has ended.
    pub(crate) fn run(&mut self) {
        while !self.closed {
            match self.session.step() {
                Step::Write(octets) => self.output.extend_from_slice(octets),
                Step::Read => {
                    if !self.stopping || !self.expects_command() {
                        return;
                    }
                    self.session.shutting_down();
                }
                Step::Ask(query) => {
                    let answer = ready(self.hooks.ask(query));
                    self.session.decide(answer, Stopped.now());
                }
                Step::Authenticate(_, query) => {
                    let answer = users::answer(query);
                    self.session.authenticated(answer);
                }
                Step::StartTls => {
                    self.handshaking = true;
                    return;
                }
                Step::Begin => {
                    let begun = self.shelf.begin().and_then(|mut draft| {
                        ready(draft.write(self.session.received(draft.id(), Stopped.now()).as_bytes()))?;
                        self.draft = Some(draft);
                        Ok(())
                    });
                    self.session.begun(begun);
                }
                Step::Content(octets) => {
                    if let Some(draft) = &mut self.draft
                        && let Err(error) = ready(draft.write(octets))
                    {
                        self.draft = None;
                        self.session.refused_content(error);
                    }
                }
                Step::Discard => self.draft = None,
                Step::Commit(envelope) => {
                    let committed =
                        ready(self.shelf.commit(self.draft.take().unwrap(), envelope, self.session.client()));
                    self.session.committed(committed);
                }
                Step::Close => {
                    self.closed = true;
                    self.draft = None;
                }
            }
        }
    }

    fn expects_command(&self) -> bool {
        matches!(self.session.phase(), Phase::Command | Phase::RestOfCommand)
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8(self.output.clone()).unwrap()
    }

    /// The code of every reply so far, of multi-line replies once.
    pub(crate) fn codes(&self) -> Vec<u16> {
        let output = self.output();
        let last_lines = output.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        last_lines.map(|line| line.get(..3).unwrap().parse().unwrap()).collect()
    }
}

/// The output of a future that waits for nobody.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a test's answers are ready"),
    }
}
