//! From a message id to an outcome for each recipient.
//!
//! A message's recipients are grouped by next hop into jobs; every recipient has its own state, and what happens
//! to one never affects another. Work starts the moment it is possible; nothing polls.
//!
//! Pure parts, which take time and randomness as parameters:
//! - [`config`]: the `delivery:` and `dsn:` tables
//! - [`route`]: a forward-path, the sender and the configuration make a next hop
//! - [`queue`]: which job is due, and which connection gets it
//! - `source`: the address that a message leaves from
//! - [`site`]: which domains have the same hosts
//! - [`schedule`]: when to try again
//! - [`failure`]: what a failure means: bounce, defer, or try the next host
//! - [`dsn`]: the message that tells the sender (RFC 3464)
//!
//! Parts that do I/O:
//! - [`resolve`]: a domain's MX hosts and their addresses
//! - `lane`: a connection that takes job after job; `attempt`: one job over the hosts of its next hop, and `attempted`, what it
//!   has come to; `open`: a connection to a host, encrypted as the policy wants it; `maildir`
//! - `rollup`: whether a connection's lane is the right one for a job's domains
//! - `hosts`: the addresses of a next hop, looked up when their turn comes; `order`: hosts in the order in which they are
//!   tried; `health`: those that could not be reached lately
//! - [`header`]: the beginning of a message's content
//! - [`Processor`]: joins queue, lanes and spool; what the daemon and the control socket talk to

pub mod config;
pub mod dsn;
pub mod failure;
pub mod queue;
pub mod resolve;
pub mod route;
pub mod schedule;
pub mod site;

mod attempt;
mod attempted;
mod content;
mod denied;
mod health;
mod hosts;
mod lane;
mod log;
mod maildir;
mod metrics;
mod open;
mod order;
mod processor;
mod rollup;
mod source;

pub use config::{Config, DsnConfig};
pub use content::header;
pub use metrics::Metrics;
pub use processor::{
    Because, Filter, HistoryView, MessageView, Parts, Processor, RecipientView, Reload, ReplyView, Settings,
    Stats, Touched, WhyView,
};
pub use queue::{MessageStatus, RecipientStatus};
pub use resolve::Resolver;
