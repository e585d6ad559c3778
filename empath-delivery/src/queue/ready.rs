use empath_common::{MessageId, Priority};

use super::{destinations::Destination, few::Few, moment::Moment};
use crate::route::SenderClass;

/// Recipients of one message that are ready for one next hop.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) id: MessageId,
    pub(super) recipients: Few<u32>,
    pub(super) since: Moment,
    pub(super) priority: Priority,
    /// By which its lane was chosen.
    pub(super) sender: SenderClass,
    /// That of the first recipient, or what had its number when there is none any more.
    pub(super) destination: Destination,
    /// How many connections there may be while it waits.
    pub(super) max_connections: u16,
}
