//! Every line that the server logs. A client's misbehaviour is information, never an error.

use std::{error::Error, fmt, io, net::SocketAddr, path::Path};

use empath_common::{Client, Escaped, Reply, TlsSession};
use tracing::{debug, error, info, warn};

use super::auth::Mechanism;

pub(super) fn listening(address: SocketAddr) {
    info!(%address, "listening for SMTP");
}

/// Descriptors or memory have run out, or the network is in trouble: it is tried again in a moment.
pub(super) fn accept_failed(address: SocketAddr, failure: &io::Error) {
    warn!(%address, error = %failure, "connections cannot be accepted at present");
}

/// `more` connections were refused since the last such line.
pub(super) fn connection_refused(peer: SocketAddr, reason: &dyn fmt::Display, more: u64) {
    info!(%peer, %reason, more, "connection refused");
}

/// A proxy has said for whom it speaks.
pub(super) fn proxied(client: &Client) {
    debug!(
        peer = %client.peer,
        name = client.name.as_deref(),
        user = client.user.as_deref().map(|user| Escaped(user.as_bytes()).to_string()),
        "proxied for"
    );
}

pub(super) fn opened(client: &Client) {
    debug!(peer = %client.peer, local = %client.local, "session opened");
}

pub(super) fn secured(client: &Client, tls: &TlsSession) {
    debug!(
        peer = %client.peer,
        version = tls.version,
        cipher = tls.cipher,
        certificate = tls.certificate.as_deref().map(|subject| Escaped(subject.as_bytes()).to_string()),
        "session encrypted"
    );
}

pub(super) fn certificate_changed(file: &Path) {
    info!(file = %file.display(), "certificate read again");
}

/// Clients are shown the last good one, until the files change once more.
pub(super) fn certificate_kept(failure: &dyn Error) {
    error!(error = %failure, "a changed certificate can't be used; the one before stays in use");
}

pub(super) fn users_changed(file: &Path, users: usize) {
    info!(file = %file.display(), users, "users file read again");
}

/// The users of before stay, until the file changes once more.
pub(super) fn users_kept(failure: &dyn Error) {
    error!(error = %failure, "a changed users file can't be used; the users of before stay");
}

pub(super) fn authenticated(client: &Client, mechanism: Mechanism) {
    info!(
        peer = %client.peer,
        user = %Escaped(client.user.as_deref().unwrap_or_default().as_bytes()),
        mechanism = mechanism.name(),
        "authenticated"
    );
}

/// More passwords wait for being checked than may.
pub(super) fn too_many_verifications() {
    warn!("an authentication was put off: smtp.auth.waiting passwords wait already");
}

pub(super) fn verification_failed(failure: &dyn fmt::Display) {
    error!(error = %failure, "a password could not be checked");
}

pub(super) fn closed(peer: SocketAddr, reason: &dyn fmt::Display) {
    debug!(%peer, %reason, "session closed");
}

/// A defect of ours ended a session; the others go on.
pub(super) fn panicked(failure: &tokio::task::JoinError) {
    error!(error = %failure, "a session ended by a defect");
}

/// Policy, a limit or the storage refused what the client wanted.
pub(super) fn refused(client: &Client, what: &'static str, subject: &dyn fmt::Display, reply: &Reply) {
    info!(
        peer = %client.peer,
        helo = %Escaped(client.helo.as_deref().unwrap_or_default().as_bytes()),
        command = what,
        subject = %Escaped(subject.to_string().as_bytes()),
        reply = %Escaped(reply.to_string().as_bytes()),
        "refused"
    );
}

/// The client did not keep to the protocol.
pub(super) fn bad_command(client: &Client, reply: &Reply) {
    debug!(peer = %client.peer, %reply, "bad command");
}
