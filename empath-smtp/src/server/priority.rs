//! Whose word about the priority of a message counts (RFC 6710).

use empath_common::{MtPriority, Reply};

use super::reply;

/// The priority that counts, and the reply to MAIL if that is another than the client wanted (RFC 6710).
pub(super) fn that_counts(
    wanted: Option<MtPriority>,
    is_trusted: bool,
) -> (Option<MtPriority>, Option<Reply>) {
    match wanted {
        Some(other) if !is_trusted && other != MtPriority::NORMAL => (None, Some(reply::PRIORITY_CHANGED)),
        wanted => (wanted.filter(|_| is_trusted), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_client_chooses_a_priority_and_others_are_told() {
        for number in -9..=9 {
            let wanted = MtPriority::new(number);
            assert_eq!(that_counts(wanted, true), (wanted, None));
            let told = (number != 0).then_some(reply::PRIORITY_CHANGED);
            assert_eq!(that_counts(wanted, false), (None, told), "{number}");
        }
        assert_eq!(that_counts(None, true), (None, None));
    }
}
