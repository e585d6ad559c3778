use std::net::IpAddr;

use empath_common::{Envelope, Query};

use super::super::auth::AuthQuery;

/// What the driver is to do.
#[derive(Debug)]
pub enum Step<'a> {
    /// Send these octets.
    Write(&'a [u8]),
    /// Wait for the client.
    Read,
    /// Do a TLS handshake.
    StartTls,
    /// Put this question to policy.
    Ask(Query<'a>),
    /// Put this question about a user to [`Authenticator`](crate::server::auth::Authenticator), for the client's address.
    Authenticate(IpAddr, AuthQuery<'a>),
    /// Start a message: its first octets are [`Session::received`](super::Session::received).
    Begin,
    /// Append these octets to the message.
    Content(&'a [u8]),
    /// The message is refused, although its content goes on: forget what there is.
    Discard,
    /// Make the message durable.
    Commit(Envelope),
    /// Close the connection.
    Close,
}

/// [`Step`] before it borrows from the session.
pub(super) enum Next {
    Write,
    Read,
    StartTls,
    Ask,
    Authenticate,
    Begin,
    Content(usize),
    Crlf,
    /// Content that was mended on its way.
    Mended,
    Discard,
    Commit(Envelope),
    Close,
}

/// What the client is waited for with, for choosing the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The end of a command line.
    Command,
    /// The same, what came last having brought none.
    RestOfCommand,
    /// The first octets of content.
    DataInit,
    /// More content.
    DataBlock,
}
