//! The receiving end: [`Session`] owns the protocol, the connection driver owns the socket.
//!
//! The way in: [`Listener`] → `connection` (over a `stream`, with [`Tls`]) ⇄ [`Session`], which puts questions to [`Hooks`](empath_common::Hooks)
//! ([`RelayControl`] is the first of them) and hands content to an [`Intake`].
//!
//! - What a client may say: `line` (CRLF ends a command), `command`, `parameter`.
//! - Whom somebody else speaks for: `proxy` (the PROXY protocol), `xclient`.
//! - Who the client is: [`auth`].
//! - What it means: `transaction` (the states of RFC 5321 §4.1.4), `session`, `reply`.
//! - What the message is made of: `framing` (CRLF.CRLF ends it), `chunk` (or its size is told), `inspection` (limits), `content`, `trace`; what users
//!   forgot: `submission`.
//! - How much a client may use, and how long it may take: `limits`, `connections`, `deadline`.
//! - What is promised to operators: `config`, `metrics` (by `verb`), `log`.

pub mod auth;
mod chunk;
mod command;
mod config;
mod connection;
mod connections;
mod content;
mod deadline;
mod framing;
mod from;
mod future_release;
mod inspection;
mod intake;
mod limits;
mod line;
mod listener;
mod log;
mod metrics;
mod network;
mod parameter;
mod priority;
mod proxy;
mod relay;
mod reply;
mod session;
mod stream;
mod submission;
mod throttle;
mod tls;
mod trace;
mod transaction;
mod verb;
mod xclient;

pub use auth::{AuthConfig, Authenticator};
pub use config::{BareNewlines, Config, ListenerConfig, Mode, Timeouts};
pub use connection::{Server, serve};
pub use connections::{Admitted, Connections, Refused};
pub use intake::{Draft, Intake, IntakeError};
pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use metrics::Metrics;
pub use network::{Network, NetworkError};
pub use proxy::{Header, Origin, ProxyError};
pub use relay::RelayControl;
pub use session::{Phase, Session, Settings, Step};
pub use tls::{CertificateConfig, Tls};
