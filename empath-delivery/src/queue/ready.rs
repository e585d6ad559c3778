use empath_common::{MessageId, Priority};

use super::{few::Few, moment::Moment};
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
}
