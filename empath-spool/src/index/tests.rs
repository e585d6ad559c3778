use super::*;

fn id(number: u8) -> MessageId {
    MessageId::from_bytes([number; 16])
}

fn at(segment: u32) -> At {
    At::new(segment, 0).unwrap()
}

fn index(segments: u32) -> Index {
    let mut index = Index::default();
    (1..=segments).for_each(|segment| index.begin(segment, 0, 1000));
    index
}

#[test]
fn a_segment_goes_only_after_all_older_ones() {
    let mut index = index(4);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    index.apply(Effect::Accepted(id(2)), at(1), 100);
    index.apply(Effect::Removed(id(1)), at(2), 100);
    assert!(index.take_dead().is_empty(), "segment 2 holds what keeps message 1 from rising again");
    index.apply(Effect::Progress(id(2)), at(3), 100);
    index.apply(Effect::Removed(id(2)), at(4), 100);
    assert_eq!(index.take_dead(), [1, 2, 3]);
    assert!(index.take_dead().is_empty(), "the youngest is being written");
    assert_eq!(index.octets(), (1000, 0, 0));
}

#[test]
fn a_segment_that_cannot_be_read_is_not_let_go_for_a_copy() {
    let mut index = index(2);
    index.keep(1, KeptReason::Unreadable);
    index.keep_for(Damage::new(1, 0..1, crate::DamageReason::Begin), 7);
    assert_eq!(index.kept().map(|(_, kept)| kept.reason).collect::<Vec<_>>(), [KeptReason::Unreadable]);
    assert!(index.take_dead().is_empty());
    index.release(1);
    assert_eq!((index.take_dead(), index.kept().count()), (vec![1], 0));
}

#[test]
fn progress_of_an_unknown_message_keeps_no_segment() {
    let mut index = index(2);
    index.apply(Effect::Progress(id(1)), at(1), 100);
    assert_eq!(index.take_dead(), [1]);
}

#[test]
fn a_message_that_is_written_again_frees_the_segment_where_it_stood() {
    let mut index = index(3);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    index.apply(Effect::Progress(id(1)), at(2), 50);
    assert_eq!(index.segment(1).unwrap().live, 150);
    index.apply(Effect::Accepted(id(1)), at(3), 100);
    index.apply(Effect::Progress(id(1)), at(3), 50);
    assert_eq!(index.take_dead(), [1, 2]);
    assert_eq!(index.octets(), (1000, 150, 0));
}

#[test]
fn the_oldest_segment_is_compacted_when_the_journal_is_twice_what_it_holds() {
    let mut index = index(4);
    index.apply(Effect::Accepted(id(1)), at(1), 900);
    assert_eq!(index.to_compact(1000, false).map(|(number, _)| number), Some(1));
    index.apply(Effect::Accepted(id(2)), at(2), 100);
    assert_eq!(index.to_compact(1000, false), None);
    assert_eq!(index.to_compact(1000, true), None, "too little would come back");
    index.apply(Effect::Removed(id(1)), at(3), 0);
    index.apply(Effect::Accepted(id(3)), at(1), 500);
    index.keep(1, KeptReason::Unreadable);
    assert_eq!(index.to_compact(1000, true), None, "it stays anyway");
}

#[test]
fn too_much_progress_is_marked_until_one_takes_its_place() {
    let mut index = index(2);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    for number in 1..=MAX_LINKS {
        assert!(!index.has_long(), "{number}");
        index.apply(Effect::Progress(id(1)), At::new(1, number).unwrap(), 50);
    }
    let last = At::new(2, 9).unwrap();
    index.follows(id(1), last, At::new(2, 8));
    index.apply(Effect::Progress(id(1)), last, 50);
    assert_eq!(index.take_long(None, 9), [id(1)]);
    assert!(!index.has_long());
    index.apply(Effect::Progress(id(1)), At::new(2, 10).unwrap(), 50);
    assert!(index.has_long(), "it comes back");
    let condensed = At::new(2, 11).unwrap();
    index.apply(Effect::Condensed(id(1)), condensed, 70);
    let (message, gaps) = index.message_and_gaps(id(1)).unwrap();
    assert_eq!((message.progress, message.links, message.octets()), (Some(condensed), 1, 170));
    assert_eq!((gaps, index.has_long()), (vec![], false));
    assert_eq!((index.octets().1, index.segment(1).unwrap().live), (170, 170));
}

#[test]
fn a_long_history_is_written_again_when_it_has_doubled() {
    let mut index = index(1);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    index.apply(Effect::Condensed(id(1)), At::new(1, 1).unwrap(), 10_000);
    for number in 0..100 {
        assert!(!index.has_long(), "{number}");
        index.apply(Effect::Progress(id(1)), At::new(1, 2 + number).unwrap(), 100);
    }
    index.apply(Effect::Progress(id(1)), At::new(1, 102).unwrap(), 100);
    assert!(index.has_long());
}

#[test]
fn progress_that_does_not_know_the_one_before_marks_a_gap() {
    let mut index = index(1);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    let place = |offset| At::new(1, offset);
    let mut progress = |offset, previous| {
        index.follows(id(1), place(offset).unwrap(), previous);
        index.apply(Effect::Progress(id(1)), place(offset).unwrap(), 1);
        index.message_and_gaps(id(1)).unwrap().1
    };
    assert_eq!(progress(1, None), []);
    assert_eq!(progress(2, place(1)), []);
    assert_eq!(progress(4, place(3)), [(place(4).unwrap(), place(2))]);
}

#[test]
fn what_says_what_is_in_a_segment_counts_among_what_compaction_frees() {
    let mut index = index(4);
    index.apply(Effect::Accepted(id(1)), at(1), 100);
    assert_eq!(index.to_compact(1900, false), None);
    index.has_contents(1, 30);
    index.has_contents(1, 10);
    assert_eq!(index.octets(), (4010, 100, 0));
    assert_eq!(index.to_compact(1900, false).map(|(number, _)| number), Some(1));
    index.apply(Effect::Removed(id(1)), at(4), 100);
    assert_eq!((index.take_dead(), index.octets()), (vec![1, 2, 3], (1000, 0, 0)));
}
