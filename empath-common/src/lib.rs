//! The vocabulary that the parts of Empath share: addresses, envelopes, replies, ids, and the questions that
//! are put to policy. Everything here is parsed once and valid from then on; nothing here does I/O.
//!
//! - Addresses (RFC 5321 §4.1.2, RFC 6531): [`Domain`], [`DomainPattern`], [`AddressLiteral`], [`Host`], [`Mailbox`],
//!   [`ReversePath`], [`ForwardPath`]
//! - A message on its way: [`Envelope`], [`Metadata`], [`MessageId`], [`Priority`], [`MtPriority`], [`FutureRelease`]
//! - What its sender wants to hear of it (RFC 3461, RFC 6533): [`MessageNotification`], [`RecipientNotification`], [`xtext`]
//! - Answers (RFC 5321 §4.2, RFC 3463): [`Reply`], [`ReplyCode`], [`EnhancedStatus`]
//! - The seam between protocol and policy: [`Client`], [`Query`], [`Verdict`], [`Hook`],
//!   [`Hooks`]
//! - Small things that two crates need: [`ByteSize`], [`Clock`], [`Escaped`], [`Problem`]

mod client;
mod clock;
mod domain;
mod envelope;
mod escape;
mod future_release;
mod hook;
mod id;
mod literal;
mod mailbox;
mod notification;
mod path;
mod pattern;
mod priority;
mod problem;
mod reply;
mod size;
pub mod xtext;

pub use client::{Client, TlsSession};
pub use clock::{Clock, SystemClock};
pub use domain::{Domain, DomainError};
pub use envelope::{Body, Envelope, Metadata, MetadataFull, TooManyRecipients};
pub use escape::Escaped;
pub use future_release::FutureRelease;
pub use hook::{Answer, Asked, Hook, Hooks, Query, Verdict};
pub use id::{MessageId, MessageIdError};
pub use literal::{AddressLiteral, LiteralError};
pub use mailbox::{Charset, Host, Mailbox, MailboxError};
pub use notification::{
    EnvelopeId, MessageNotification, Notify, OriginalRecipient, RecipientNotification, Ret,
};
pub use path::{ForwardPath, PathError, ReversePath};
pub use pattern::{DomainPattern, DomainPatternError};
pub use priority::{MtPriority, Priority};
pub use problem::Problem;
pub use reply::{EnhancedStatus, EnhancedStatusError, Reply, ReplyCode, ReplyCodeError};
pub use size::{ByteSize, ByteSizeError};
